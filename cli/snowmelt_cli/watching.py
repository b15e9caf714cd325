"""`snowmelt watch`: a FineTuneJob of a cluster, live, until it is finished."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, CustomObjectsApi
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from kubernetes.aio.watch import Watch
from rich.console import Console
from rich.text import Text

from snowmelt_cli.running import view_of
from snowmelt_cli.view import result_lines
from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.v1alpha1 import GROUP, PLURAL, VERSION

WATCH_SECONDS = 240
"""A watch is asked anew after this, so that one that died unnoticed is not waited for."""
RETRY_SECONDS = 1.0
REFUSED = {401: "the API server does not know who you are", 403: "you may not watch FineTuneJobs there"}
PASSING = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""Interruptions after which the job is read again; ValueError is a line too long for the watch's buffer."""


class WatchError(Exception):
    """There is nothing to watch; the message says why."""


async def watch(name: str, *, namespace: str | None, context: str | None, console: Console) -> int:
    """Shows the job until it is finished. Returns 0 when it succeeded and 1 when it failed.

    Raises:
        WatchError: when there is no such job, no cluster, or no permission.
    """
    _require_kubeconfig()
    where = namespace or _namespace_of(context)
    async with await _connect(context) as client:
        with view_of(f"{where}/{name}", console) as view:
            job: StoredJob | None = None
            async for job in _states(CustomObjectsApi(client), where, name):
                if job is None:
                    raise WatchError(f"FineTuneJob {name} was deleted")
                view.show(job.status, state=_state(job.status), now=datetime.now(UTC))
                if _verdict(job.status) is not None:
                    break
    assert job is not None
    return _conclude(job.status, console)


def _require_kubeconfig() -> None:
    files = [Path(file).expanduser() for file in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if file]
    if not any(file.exists() for file in files):
        raise WatchError(f"no cluster is configured: {files[0]} does not exist: set KUBECONFIG to your cluster's")


def _namespace_of(context: str | None) -> str:
    try:
        contexts, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise WatchError(f"no cluster is configured: {error}; set KUBECONFIG") from error
    chosen = next((entry for entry in contexts if entry["name"] == context), current)
    return str(chosen["context"].get("namespace", "default"))


async def _connect(context: str | None) -> ApiClient:
    try:
        client: ApiClient = await config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise WatchError(f"no cluster is configured: {error}; see `kubectl config get-contexts`") from error
    return client


async def _states(api: CustomObjectsApi, namespace: str, name: str) -> AsyncIterator[StoredJob | None]:
    """The job as it is, whenever it changes; None when it is deleted. What a broken connection hid is read anew."""
    while True:
        try:
            document = cast(
                dict[str, Any], await api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
            )
            yield read_job(document)
            async for event in _events(api, namespace, name, document["metadata"]["resourceVersion"]):
                if event["type"] == "DELETED":
                    yield None
                    return
                yield read_job(event["object"])
        except ApiException as error:
            if error.status == 404:
                raise WatchError(f"there is no FineTuneJob {name} in namespace {namespace}") from error
            if error.status in REFUSED:
                raise WatchError(f"{REFUSED[error.status]} (namespace {namespace})") from error
        except PASSING:
            pass
        await asyncio.sleep(RETRY_SECONDS)


async def _events(api: CustomObjectsApi, namespace: str, name: str, version: str) -> AsyncIterator[dict[str, Any]]:
    async with Watch() as stream:  # type: ignore[no-untyped-call]
        async for event in stream.stream(
            api.list_namespaced_custom_object,
            GROUP,
            VERSION,
            namespace,
            PLURAL,
            field_selector=f"metadata.name={name}",
            resource_version=version,
            timeout_seconds=WATCH_SECONDS,
        ):
            yield event


def _condition(status: FineTuneJobStatus, *kinds: ConditionType) -> str | None:
    """Reason and message of the first of these conditions that is true."""
    for condition in status.conditions:
        if condition.type in kinds and condition.status == "True":
            return f"{condition.reason}: {condition.message}" if condition.message else condition.reason
    return None


def _verdict(status: FineTuneJobStatus) -> ConditionType | None:
    ends = (ConditionType.COMPLETE, ConditionType.FAILED)
    return next((end for end in ends if _condition(status, end) is not None), None)


def _state(status: FineTuneJobStatus) -> str:
    phase = status.phase or "Pending: no operator has seen it yet"
    return f"{phase}, attempt {status.attempts.current}" if status.attempts.current > 1 else phase


def _conclude(status: FineTuneJobStatus, console: Console) -> int:
    verdict = _verdict(status)
    succeeded = verdict is ConditionType.COMPLETE
    assert verdict is not None
    style, word = ("green", "Succeeded") if succeeded else ("red", "Failed")
    console.print(Text.assemble((word, style), "  ", _condition(status, verdict) or ""), soft_wrap=True)
    if status.result is not None:
        for label, text in (("model", status.result.model_uri), *result_lines(status.result)):
            console.print(f"{label:<10} {text}", soft_wrap=True, highlight=False, markup=False)
    return 0 if succeeded else 1
