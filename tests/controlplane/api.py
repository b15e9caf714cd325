"""The API server as the tests see it: plain JSON over HTTPS, and waiting for a condition instead of sleeping."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from hack.kube import ControlPlane

Object = dict[str, Any]
PATHS = {
    "finetunejobs": "/apis/snowmelt.dev/v1alpha1",
    "rayjobs": "/apis/ray.io/v1",
    "rayclusters": "/apis/ray.io/v1",
    "secrets": "/api/v1",
    "pods": "/api/v1",
    "serviceaccounts": "/api/v1",
    "events": "/apis/events.k8s.io/v1",
}
PATIENCE_S = 45.0
Seen = TypeVar("Seen")


class Api:
    """Requests to one namespace as one user. `httpx.HTTPStatusError` carries the API server's own words."""

    def __init__(self, plane: ControlPlane, namespace: str, user: str = "admin") -> None:
        self.namespace = namespace
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        headers = {"Authorization": f"Bearer {plane.token(user)}"}
        self._client = httpx.Client(base_url=plane.url, headers=headers, verify=context, timeout=10)

    def close(self) -> None:
        self._client.close()

    def get(self, resource: str, name: str) -> Object | None:
        """The object, or None when there is none."""
        answer = self._client.get(self._path(resource, name))
        return None if answer.status_code == 404 else _said(answer)

    def list(self, resource: str) -> list[Object]:
        items: list[Object] = _said(self._client.get(self._path(resource)))["items"]
        return items

    def create(self, resource: str, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create it, unknown fields refused."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return _said(self._client.post(self._path(resource), params=query, json=manifest))

    def patch(self, resource: str, name: str, change: Object, *, subresource: str = "") -> Object:
        """JSON merge patch (RFC 7396)."""
        path = self._path(resource, name) + (f"/{subresource}" if subresource else "")
        headers = {"Content-Type": "application/merge-patch+json"}
        return _said(self._client.patch(path, content=json.dumps(change), headers=headers))

    def delete(self, resource: str, name: str, *, grace_seconds: int | None = None) -> None:
        query = {} if grace_seconds is None else {"gracePeriodSeconds": str(grace_seconds)}
        _said(self._client.delete(self._path(resource, name), params=query))

    def watch_code(self, resource: str, resource_version: str) -> int:
        """The code with which the API server answers a watch from that version on."""
        query = {"watch": "true", "resourceVersion": resource_version, "timeoutSeconds": "1"}
        answer = self._client.get(self._path(resource), params=query)
        events = [json.loads(line) for line in answer.text.splitlines() if line]
        failures = [event["object"]["code"] for event in events if event.get("type") == "ERROR"]
        return int(failures[0]) if failures else answer.status_code

    def until(
        self,
        resource: str,
        name: str,
        holds: Callable[[Object], bool],
        *,
        within_s: float = PATIENCE_S,
    ) -> Object:
        """The object as soon as it exists and `holds` says yes; fails the test with the object as it last was."""
        seen, held = _awaited(
            lambda: self._get_patiently(resource, name), lambda it: it is not None and holds(it), within_s
        )
        shown = seen and (seen.get("status") or seen)
        assert held, f"{resource} {name} is not as awaited after {within_s:g} s: {json.dumps(shown, indent=1)}"
        assert seen is not None
        return seen

    def until_gone(self, resource: str, name: str, *, within_s: float = PATIENCE_S) -> None:
        _, gone = _awaited(lambda: self._get_patiently(resource, name), lambda it: it is None, within_s)
        assert gone, f"{resource} {name} is still there after {within_s:g} s"

    def told(self, job: str, reason: str) -> str:
        """The words of the FineTuneJob's Event of that reason, awaited: the operator writes it after the status."""
        notes, told = _awaited(lambda: self._notes(job), lambda by_reason: reason in by_reason, PATIENCE_S)
        assert told, f"{job} has no Event {reason} after {PATIENCE_S:g} s, only {notes}"
        return notes[reason]

    def _notes(self, job: str) -> dict[str, str]:
        """What the FineTuneJob's Events say, by reason."""
        return {each["reason"]: each["note"] for each in self.list("events") if each["regarding"]["name"] == job}

    def _get_patiently(self, resource: str, name: str) -> Object | None:
        try:
            return self.get(resource, name)
        except httpx.TransportError:
            return None

    def _path(self, resource: str, name: str = "") -> str:
        return f"{PATHS[resource]}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")


def _awaited(look: Callable[[], Seen], holds: Callable[[Seen], bool], within_s: float) -> tuple[Seen, bool]:
    """What is seen as soon as that holds, or last, and whether it holds."""
    end = time.monotonic() + within_s
    while True:
        seen = look()
        held = holds(seen)
        if held or time.monotonic() > end:
            return seen, held
        time.sleep(0.1)


def _said(answer: httpx.Response) -> Object:
    if answer.is_error:
        raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
    document: Object = answer.json()
    return document


def condition(job: Object, type_: str) -> Object:
    """The condition of that type; empty when the job has none."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == type_), {})


def is_in_phase(phase: str) -> Callable[[Object], bool]:
    return lambda job: job.get("status", {}).get("phase") == phase


def has(type_: str, *, status: str = "True", reason: str | None = None) -> Callable[[Object], bool]:
    """Whether a condition has that status, and that reason when one is given."""

    def holds(job: Object) -> bool:
        found = condition(job, type_)
        return found.get("status") == status and reason in (None, found.get("reason"))

    return holds


def is_at_attempt(number: int) -> Callable[[Object], bool]:
    return lambda job: job.get("status", {}).get("attempts", {}).get("current") == number
