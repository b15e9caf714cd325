"""Pods as the API server stores them once kubelet, scheduler and controllers have written their status (v1.36)."""

from __future__ import annotations

from typing import Any

from snowmelt_operator.pods.pod import Pod

IMAGE = "registry.example/team/trainer:1"
UID = "0c0ffee0-0000-4000-8000-000000000001"
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-24T11:59:00Z"}
NOT_FOUND = (
    f'Back-off pulling image "{IMAGE}": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack '
    f'image "{IMAGE}": failed to resolve reference "{IMAGE}": {IMAGE}: not found'
)


def pod(
    name: str = "shoes-a1-abc34-head-x1",
    *,
    attempt: int = 1,
    version: int = 100,
    deleting: bool = False,
    **status: Any,
) -> dict[str, Any]:
    """A pod of attempt `attempt` with this status."""
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "labels": {
            "app.kubernetes.io/managed-by": "snowmelt",
            "snowmelt.dev/job": "shoes",
            "snowmelt.dev/uid": UID,
            "snowmelt.dev/attempt": str(attempt),
            "ray.io/node-type": "head",
        },
    }
    if deleting:
        metadata |= {"deletionTimestamp": "2026-11-24T12:00:30Z", "deletionGracePeriodSeconds": 30}
    spec = {"nodeName": "node-1", "containers": [{"name": "ray-head", "image": IMAGE}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def parsed(document: dict[str, Any]) -> Pod:
    read = Pod.parse(document)
    assert read is not None
    return read


def container(name: str = "ray-head", *, restarts: int = 0, last: dict[str, Any] | None = None, **state: Any) -> Any:
    """One entry of containerStatuses."""
    return {
        "name": name,
        "image": IMAGE,
        "imageID": "",
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": restarts,
        "lastState": {"terminated": last} if last else {},
        "state": state,
    }


def ended(reason: str, exit_code: int, message: str = "", *, at: str = "2026-11-24T11:59:50Z") -> dict[str, Any]:
    said = {"message": message} if message else {}
    started = "2026-11-24T11:59:10Z"
    return {"reason": reason, "exitCode": exit_code, "startedAt": started, "finishedAt": at, "containerID": "x", **said}


def waiting(reason: str, message: str = "", **about: Any) -> dict[str, Any]:
    """Status of a scheduled pod whose one container waits."""
    state = {"reason": reason} | ({"message": message} if message else {})
    return {
        "phase": "Pending",
        "conditions": [SCHEDULED],
        "containerStatuses": [container(waiting=state, **about)],
    }


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition | {"lastTransitionTime": "2026-11-24T11:59:00Z"}]}


def running(**about: Any) -> dict[str, Any]:
    up = {"startedAt": "2026-11-24T11:59:30Z"}
    true = [{"type": type_, "status": "True"} for type_ in ("Ready", "ContainersReady", "Initialized")]
    return {
        "phase": "Running",
        "conditions": [SCHEDULED, *true],
        "containerStatuses": [container(running=up, **about)],
    }


def disrupted(reason: str, message: str) -> dict[str, Any]:
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return running() | {"conditions": [SCHEDULED, target]}
