"""Where the API server is and who we are there: one configuration for our own client and for kopf."""

from __future__ import annotations

import os

import kopf
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from snowmelt_operator.settings import SettingsError


async def load_configuration() -> client.Configuration:
    """The kubeconfig that KUBECONFIG names; in a pod, without that variable, the pod's service account.

    Raises:
        SettingsError: there is neither, or it cannot be read.
    """
    configuration = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise SettingsError(f"KUBECONFIG: there is no usable kubeconfig and this is no pod: {error}") from error
    return configuration


async def kopf_connection(configuration: client.Configuration) -> kopf.ConnectionInfo:
    """The same for kopf, with the token as it is now."""
    authorization = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    scheme, _, token = authorization.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
