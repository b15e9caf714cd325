"""kopf's event handlers. They only wake: kopf neither retries nor repeats them, so nothing is decided here."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import kopf

from snowmelt_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from snowmelt_operator.pods.observer import POD_SELECTOR
from snowmelt_operator.render.names import SELECTOR

Connect = Callable[[], Awaitable[kopf.AiohttpSession]]


class Listener(Protocol):
    """What the watches tell."""

    def job_event(self, kind: str | None, document: dict[str, Any]) -> None:
        """A FineTuneJob; `kind` is ADDED, MODIFIED, DELETED, or None when it was listed."""
        ...

    def rayjob_event(self, kind: str | None, document: dict[str, Any]) -> None:
        """A RayJob of ours."""
        ...

    def pod_event(self, kind: str | None, document: dict[str, Any]) -> None:
        """A pod of ours."""
        ...


def build_registry(listener: Listener, connect: Connect, *, rayjobs: bool, pods: bool) -> kopf.OperatorRegistry:
    """The handlers; `connect` gives address and credentials, `rayjobs` and `pods` say whether these are watched."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return await connect()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        listener.job_event(event["type"], dict(event["object"]))

    if rayjobs:

        @kopf.on.event("ray.io", "v1", "rayjobs", registry=registry)
        async def rayjob(event: kopf.RawEvent, **_: Any) -> None:
            listener.rayjob_event(event["type"], dict(event["object"]))

    if pods:

        @kopf.on.event("", "v1", "pods", registry=registry)
        async def pod(event: kopf.RawEvent, **_: Any) -> None:
            listener.pod_event(event["type"], dict(event["object"]))

    return registry


def build_settings() -> kopf.OperatorSettings:
    """kopf's settings: it watches, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # With them the API server sends what is ours alone; a handler's own filter would be applied here (kopf PR 1311).
    settings.watching.label_selectors["ray.io", "v1", "rayjobs"] = SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = POD_SELECTOR
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.persistence.diffbase_storage = _NothingStored()
    settings.queueing.idle_timeout = 1.0
    return settings


class _Backoffs:
    """Waits between the tries of one request of kopf's: half a minute in all, never in step with other replicas."""

    def __iter__(self) -> Iterator[float]:
        return iter([seconds * random.uniform(0.5, 1.5) for seconds in (0.5, 1, 2, 4, 8, 8, 8)])


class _NothingStored(kopf.DiffBaseStorage):
    """Only change handlers need an object's last state; without any, each copy of an object is for nothing."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is stored."""
