"""Where the key that signs progress tokens comes from: a file, or a Secret that the first replica fills."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets

from snowmelt_operator.cluster import Cluster, ClusterError, ClusterRefusedError, ClusterUnavailableError
from snowmelt_operator.progress.tokens import MIN_KEY_BYTES, SigningKey
from snowmelt_operator.settings import Settings, SettingsError

_RETRY_SECONDS = 2.0
_DATA_KEY = "key"
_INVALID = 422

log = logging.getLogger(__name__)


async def load_key(settings: Settings, cluster: Cluster) -> SigningKey:
    """The key; waits for the API server when it has to come from there.

    Raises:
        SettingsError: the file or the Secret holds no usable key.
    """
    if settings.token_key_file is not None:
        try:
            return SigningKey(settings.token_key_file.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"SNOWMELT_TOKEN_KEY_FILE: {error}") from error
    while True:
        try:
            return await _from_secret(settings.operator_namespace, settings.token_secret, cluster)
        except ClusterError as error:
            # A refusal too: an API server that has just started knows nobody's rights yet.
            log.warning("%s; trying again in %.0f s", error, _RETRY_SECONDS)
            await asyncio.sleep(_RETRY_SECONDS)


async def _from_secret(namespace: str, name: str, cluster: Cluster) -> SigningKey:
    stored = await cluster.get("v1", "Secret", namespace, name)
    if stored is None or not stored.get("data"):
        await _fill(namespace, name, cluster)
        stored = await cluster.get("v1", "Secret", namespace, name)
    if stored is None:
        raise ClusterUnavailableError(f"Secret {namespace}/{name} was deleted this moment")
    try:
        return SigningKey(base64.b64decode(stored["data"][_DATA_KEY], validate=True))
    except (KeyError, TypeError, ValueError) as error:
        problem = f"Secret {namespace}/{name} holds no usable {_DATA_KEY!r}: delete it, and it is created anew"
        raise SettingsError(problem) from error


async def _fill(namespace: str, name: str, cluster: Cluster) -> None:
    """Put a random key into the Secret, which the chart made empty; where nobody made it, it is created.

    Of several replicas that do so at once the first one wins, because its Secret is immutable.
    """
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "immutable": True,
        "data": {_DATA_KEY: base64.b64encode(secrets.token_bytes(MIN_KEY_BYTES)).decode()},
    }
    try:
        await cluster.apply(manifest)
    except ClusterRefusedError as error:
        if error.status != _INVALID:
            raise
