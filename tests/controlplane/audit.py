"""What was asked of the API server, by its own audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hack.kube import ControlPlane
from tests.controlplane.api import Object


def requests(plane: ControlPlane, namespace: str, *, user: str, verb: str, resource: str) -> Iterator[Object]:
    """Finished requests of that user about that resource in the namespace, oldest first."""
    for line in plane.audit_log.read_text().splitlines():
        entry = json.loads(line)
        about = entry.get("objectRef", {})
        asked = (entry["user"]["username"], entry["verb"], about.get("resource"), about.get("namespace"))
        if entry["stage"] == "ResponseComplete" and asked == (user, verb, resource, namespace):
            yield entry


def created_by_operator(plane: ControlPlane, namespace: str, resource: str) -> list[str]:
    """Names of the objects that the operator brought into being; one that was made twice is in the list twice."""
    entries = requests(plane, namespace, user="operator", verb="create", resource=resource)
    return [entry["objectRef"]["name"] for entry in entries if entry["responseStatus"]["code"] == 201]
