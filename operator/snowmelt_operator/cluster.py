"""Kubernetes as the operator needs it: a small protocol, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.events import Event

FIELD_MANAGER = "snowmelt"


class ClusterError(Exception):
    """Kubernetes did not do what it was asked to; the message is for people."""


class ClusterUnavailableError(ClusterError):
    """The API server cannot be reached, is overloaded or fails: the same request may succeed later."""


class ClusterRefusedError(ClusterError):
    """The API server refused the request, and will again until something changes."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ClusterConflictError(ClusterRefusedError):
    """The object is another one, or changed, since it was read: decide anew on what it is now."""


@dataclass(frozen=True)
class Warned:
    """A Warning Event about some object."""

    reason: str
    note: str
    since: datetime


class Cluster(Protocol):
    """Kubernetes, as the operator needs it. Every method raises `ClusterError`."""

    async def get_job(self, namespace: str, name: str) -> StoredJob | None:
        """The newest FineTuneJob, or None when there is none."""
        ...

    async def list_jobs(self) -> list[StoredJob]:
        """Every FineTuneJob of the served namespaces."""
        ...

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, or None when there is none."""
        ...

    async def list_objects(self, api_version: str, kind: str, *, label_selector: str) -> list[dict[str, Any]]:
        """The objects of the served namespaces that match the selector."""
        ...

    async def apply(self, manifest: dict[str, Any], *, field_manager: str = FIELD_MANAGER) -> None:
        """Server-side apply (KEP-555), taking over fields that others own."""
        ...

    async def create(self, manifest: dict[str, Any]) -> bool:
        """Create an object; False when one of that name exists already."""
        ...

    async def change(
        self, api_version: str, kind: str, namespace: str, name: str, operations: list[dict[str, Any]]
    ) -> bool:
        """A JSON patch (RFC 6902); False when there is no such object."""
        ...

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, *, uid: str | None = None) -> bool:
        """Delete an object, only if it has that uid where one is given; False when there is none."""
        ...

    async def apply_status(
        self, job: ObjectMeta, status: dict[str, Any], *, field_manager: str = FIELD_MANAGER
    ) -> None:
        """Server-side apply of all the fields of a FineTuneJob's status that the field manager owns.

        Raises:
            ClusterConflictError: the job is no longer at the resource version of `job`.
        """
        ...

    async def record_event(self, event: Event, now: datetime) -> None:
        """Record a Kubernetes Event once: the same event again is no other event."""
        ...

    async def watch_refused(self, api_version: str, kind: str, *, label_selector: str) -> str | None:
        """Why the objects of the served namespaces may not be listed and watched; None when they may."""
        ...

    async def warnings_about(self, namespace: str, regarding: Mapping[str, str]) -> list[Warned]:
        """The Warning Events about the objects of which these fields are so (uid, kind, name), fifty at most."""
        ...

    async def log_tail(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes:
        """The last lines of a container's log; `previous`: of the instance before this one."""
        ...
