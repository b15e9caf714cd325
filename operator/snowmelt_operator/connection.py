"""Where the API server is and who we are there: one configuration for our own client and for kopf."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
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
    # Looked up once: with trust_env, aiohttp reads proxies and .netrc anew, in a thread, for each request.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    return configuration


def _proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY and NO_PROXY name for a URL."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def kopf_session(configuration: client.Configuration, asked: Callable[[str], None]) -> kopf.AiohttpSession:
    """The same for kopf, with the token as it is now; `asked` hears the last part of each path that kopf asks for."""
    info = await _kopf_connection(configuration)

    async def on_start(_session: Any, _context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        asked(request.url.name)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_start)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trace_configs=[trace],
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


async def _kopf_connection(configuration: client.Configuration) -> kopf.ConnectionInfo:
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
