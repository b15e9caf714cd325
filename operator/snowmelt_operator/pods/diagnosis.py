"""What is wrong with a pod. Pure; the kubelet's, the scheduler's and the controllers' words, one table each.

Sources: kubelet's pkg/kubelet/images and kuberuntime (container reasons), pkg/kubelet/eviction and nodeshutdown (pod
reasons), KEP-3329 (condition DisruptionTarget), the scheduler's VolumeBinding plugin (claims); Kubernetes 1.30 to 1.36.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.pod import CRASH_LOOP, Container, Pod, Terminated

SILENT = ("ContainerCreating", "PodInitializing", "")
"""A container waits so, without a word, while volumes are mounted and images pulled."""
OOM_KILLED = "OOMKilled"

_WAITING = {
    **dict.fromkeys(
        (
            "ErrImagePull",
            "ImagePullBackOff",
            "InvalidImageName",
            "ErrImageNeverPull",
            "ImageInspectError",
            "RegistryUnavailable",
            "SignatureValidationFailed",
        ),
        Reason.IMAGE_PULL_ERROR,
    ),
    **dict.fromkeys(
        (
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
            "PreCreateHookError",
            "PreStartHookError",
            "PostStartHookError",
        ),
        Reason.CONTAINER_START_ERROR,
    ),
    "ImageVolumeMountFailed": Reason.VOLUME_ERROR,
    CRASH_LOOP: Reason.CONTAINER_CRASH_LOOP_BACK_OFF,
}
_ENDED = {
    OOM_KILLED: Reason.CONTAINER_OOM_KILLED,
    "StartError": Reason.CONTAINER_START_ERROR,
    "ContainerCannotRun": Reason.CONTAINER_START_ERROR,
}
_DISRUPTED = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
    "EvictionByEvictionAPI": Reason.POD_EVICTED,
    "TerminationByKubelet": Reason.POD_EVICTED,
}
_ENDED_PODS = {
    "Evicted": Reason.POD_EVICTED,
    "Terminated": Reason.POD_EVICTED,
    "NodeShutdown": Reason.POD_EVICTED,
    "NodeLost": Reason.NODE_LOST,
    "Preempting": Reason.PREEMPTED,
    "NodeAffinity": Reason.UNSCHEDULABLE,
    "UnexpectedAdmissionError": Reason.UNSCHEDULABLE,
}
_NODE_HAS_NO_ROOM = "OutOf"
"""The kubelet refuses what the scheduler sent it: OutOfcpu, OutOfmemory, OutOfnvidia.com/gpu."""
_MISSING_CLAIM = ('persistentvolumeclaim "', " not found")
_VOLUME_WORDS = (
    "persistentvolumeclaim",
    "unbound immediate PersistentVolumeClaims",
    "volume node affinity conflict",
    "find available persistent volumes to bind",
    "match PersistentVolume's node affinity",
    "bound to non-existent pv(s)",
    "have enough free storage",
    "storageclass",
)
_PERMANENT = (Reason.IMAGE_PULL_ERROR, Reason.CONTAINER_START_ERROR)


@dataclass(frozen=True)
class Finding:
    """What is wrong, in the cluster's own words."""

    reason: Reason
    message: str
    is_permanent: bool = False
    """Whether it lasts until somebody changes something."""


@dataclass(frozen=True)
class Ended:
    """A container that ended, and whose log may be read."""

    container: str
    at: datetime | None
    restarted: bool
    """Whether the log is the previous instance's."""


@dataclass(frozen=True)
class Diagnosis:
    """What a pod tells."""

    lasting: Finding | None = None
    """What keeps it from running now."""
    happened: Finding | None = None
    """What befell it: it stays true though the pod runs again or is gone."""
    ended: Ended | None = None
    """The newest container of it that ended."""
    silent_since: datetime | None = None
    """Since when it is on a node, does not start, and says nothing: its Events may."""


def diagnose(pod: Pod) -> Diagnosis:
    """Everything that the pod's status tells."""
    happened = _disrupted(pod) or _container_killed(pod)
    lasting = None if pod.is_over else _unscheduled(pod) or _waiting(pod) or _node_silent(pod)
    return Diagnosis(
        lasting=lasting,
        happened=happened,
        ended=_ended(pod),
        silent_since=_silent_since(pod) if lasting is None and not pod.is_over else None,
    )


def _disrupted(pod: Pod) -> Finding | None:
    status, name = pod.status, pod.metadata.name
    reason = _ENDED_PODS.get(status.reason)
    if reason is None and status.reason.startswith(_NODE_HAS_NO_ROOM):
        reason = Reason.UNSCHEDULABLE
    if reason is not None:
        return Finding(reason, f"pod {name}: {status.reason}: {status.message}")
    target = pod.condition("DisruptionTarget")
    if target is None or target.status != "True":
        return None
    reason = _DISRUPTED.get(target.reason, Reason.POD_EVICTED)
    return Finding(reason, f"pod {name}: {target.reason}: {target.message}")


def _container_killed(pod: Pod) -> Finding | None:
    for container in pod.containers:
        ended = container.ended
        if ended is not None and ended.reason in _ENDED:
            return Finding(_ENDED[ended.reason], _how_it_ended(pod, container, ended))
    return None


def _unscheduled(pod: Pod) -> Finding | None:
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False" or scheduled.reason != "Unschedulable":
        return None
    message = f"pod {pod.metadata.name}: {scheduled.message}"
    if any(words in scheduled.message for words in _VOLUME_WORDS):
        return Finding(Reason.VOLUME_ERROR, message, all(words in scheduled.message for words in _MISSING_CLAIM))
    return Finding(Reason.UNSCHEDULABLE, message)


def _waiting(pod: Pod) -> Finding | None:
    for container in pod.containers:
        waiting, before = container.waiting, container.ended
        if waiting is None or (reason := _WAITING.get(waiting.reason)) is None:
            continue
        if reason is Reason.CONTAINER_CRASH_LOOP_BACK_OFF and before is not None:
            reason = _ENDED.get(before.reason, reason)
            message = f"{_how_it_ended(pod, container, before)}; {container.restart_count} restarts"
        else:
            message = f"pod {pod.metadata.name}, container {container.name}: {waiting.reason}: {waiting.message}"
        return Finding(reason, message, reason in _PERMANENT)
    return None


def _node_silent(pod: Pod) -> Finding | None:
    """A node that answers no more: the node controller takes back `Ready` alone, where a kubelet, which is not there to
    do so, would have written `ContainersReady` with it. Eviction follows minutes later."""
    ready, containers = pod.condition("Ready"), pod.condition("ContainersReady")
    if ready is None or containers is None or (ready.status, containers.status) != ("False", "True"):
        return None
    return Finding(Reason.NODE_LOST, f"pod {pod.metadata.name}: its node {pod.spec.node_name} does not answer any more")


def _how_it_ended(pod: Pod, container: Container, ended: Terminated) -> str:
    words = f": {ended.message.strip()}" if ended.message.strip() else ""
    how = f"{ended.reason or 'ended'}, exit code {ended.exit_code}{words}"
    return f"pod {pod.metadata.name}, container {container.name}: {how}"


def _ended(pod: Pod) -> Ended | None:
    ends = [
        Ended(container.name, ended.finished_at, restarted=container.state.terminated is None)
        for container in pod.containers
        if (ended := container.ended) is not None
        # An init container that did its work has nothing to tell.
        and (ended.exit_code != 0 or container in pod.status.container_statuses)
    ]
    return ends[-1] if ends else None


def _silent_since(pod: Pod) -> datetime | None:
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "True" or any(c.state.running is not None for c in pod.containers):
        return None
    waits = [c.state.waiting.reason for c in pod.containers if c.state.waiting is not None]
    return scheduled.last_transition_time if not waits or waits[0] in SILENT else None
