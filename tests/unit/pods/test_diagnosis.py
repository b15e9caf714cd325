"""What is wrong with a pod, from the words that kubelet, scheduler and controllers leave in its status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.diagnosis import Diagnosis, diagnose
from tests.unit.pods.documents import (
    IMAGE,
    NOT_FOUND,
    SCHEDULED,
    container,
    disrupted,
    ended,
    parsed,
    pod,
    running,
    unscheduled,
    waiting,
)

NO_ROOM = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: not eligible."
NO_CLAIM = '0/2 nodes are available: persistentvolumeclaim "shoes" not found. not found'
BINDING = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
FAR_AWAY = "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
EVICTED = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
NO_SECRET = 'secret "keys" not found'
NO_BASH = 'failed to create containerd task: exec: "/bin/bash": no such file or directory'
LASTING: dict[str, tuple[dict[str, Any], Reason, str, bool]] = {
    "an image that is not there": (waiting("ImagePullBackOff", NOT_FOUND), Reason.IMAGE_PULL_ERROR, "not found", True),
    "an image that could not be pulled this moment": (
        waiting("ErrImagePull", "rpc error: code = Unavailable desc = dial tcp: i/o timeout"),
        *(Reason.IMAGE_PULL_ERROR, "i/o timeout", True),
    ),
    "an image whose name is none": (
        waiting("InvalidImageName", 'couldn\'t parse image name "Trainer": must be lowercase'),
        *(Reason.IMAGE_PULL_ERROR, "must be lowercase", True),
    ),
    "an image that must be on the node": (
        waiting("ErrImageNeverPull", f'Container image "{IMAGE}" is not present with pull policy of Never'),
        *(Reason.IMAGE_PULL_ERROR, "pull policy of Never", True),
    ),
    "a secret that is not there": (
        waiting("CreateContainerConfigError", NO_SECRET),
        *(Reason.CONTAINER_START_ERROR, NO_SECRET, True),
    ),
    "a command that is not there": (
        waiting("CrashLoopBackOff", "back-off 10s", restarts=2, last=ended("StartError", 128, NO_BASH)),
        *(Reason.CONTAINER_START_ERROR, "/bin/bash", True),
    ),
    "a container that ends again and again": (
        waiting("CrashLoopBackOff", "back-off 40s restarting failed container", restarts=3, last=ended("Error", 1)),
        *(Reason.CONTAINER_CRASH_LOOP_BACK_OFF, "exit code 1; 3 restarts", False),
    ),
    "a container that waits to be started again, of which the kubelet says only how it ended": (
        {
            "phase": "Running",
            "conditions": [SCHEDULED],
            "containerStatuses": [container(terminated=ended("Error", 3), restarts=3, last=ended("Error", 3))],
        },
        *(Reason.CONTAINER_CRASH_LOOP_BACK_OFF, "exit code 3; 3 restarts", False),
    ),
    "a container that is killed again and again": (
        waiting("CrashLoopBackOff", "back-off 40s", restarts=3, last=ended("OOMKilled", 137)),
        *(Reason.CONTAINER_OOM_KILLED, "OOMKilled, exit code 137", False),
    ),
    "an init container that ends again and again": (
        waiting("PodInitializing")
        | {"initContainerStatuses": [container("wait-gcs-ready", waiting={"reason": "CrashLoopBackOff"})]},
        *(Reason.CONTAINER_CRASH_LOOP_BACK_OFF, "container wait-gcs-ready", False),
    ),
    "a request that no node meets": (unscheduled(NO_ROOM), Reason.UNSCHEDULABLE, "Insufficient nvidia.com/gpu", False),
    "a claim that does not exist": (unscheduled(NO_CLAIM), Reason.VOLUME_ERROR, '"shoes" not found', True),
    "a claim that is not bound yet": (unscheduled(BINDING), Reason.VOLUME_ERROR, "unbound immediate", False),
    "a volume on another node": (unscheduled(FAR_AWAY), Reason.VOLUME_ERROR, "node affinity", False),
    "a node that does not answer": (
        running()
        | {
            "conditions": [
                SCHEDULED,
                {"type": "Ready", "status": "False"},
                {"type": "ContainersReady", "status": "True"},
            ]
        },
        *(Reason.NODE_LOST, "node-1 does not answer", False),
    ),
}
HAPPENED: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "a container killed and running again": (
        running(restarts=1, last=ended("OOMKilled", 137)),
        *(Reason.CONTAINER_OOM_KILLED, "OOMKilled, exit code 137"),
    ),
    "a container killed for good": (
        {"phase": "Failed", "containerStatuses": [container(terminated=ended("OOMKilled", 137))]},
        *(Reason.CONTAINER_OOM_KILLED, "OOMKilled"),
    ),
    "a pod evicted by its kubelet": (
        {"phase": "Failed", "reason": "Evicted", "message": EVICTED},
        *(Reason.POD_EVICTED, "low on resource: memory"),
    ),
    "a pod whose node is drained": (
        disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
        *(Reason.POD_EVICTED, "Eviction API: evicting"),
    ),
    "a pod whose node shuts down": (
        {
            "phase": "Failed",
            "reason": "Terminated",
            "message": "Pod was terminated in response to imminent node shutdown.",
        },
        *(Reason.POD_EVICTED, "imminent node shutdown"),
    ),
    "a pod whose node is unreachable": (
        disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        *(Reason.NODE_LOST, "NoExecute taint"),
    ),
    "a pod whose node is gone": (
        {**disrupted("DeletionByPodGC", "PodGC: node no longer exists"), "phase": "Failed"},
        *(Reason.NODE_LOST, "node no longer exists"),
    ),
    "a pod that made room for another": (
        disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        *(Reason.PREEMPTED, "higher priority pod"),
    ),
    "a pod that its node refused": (
        {
            "phase": "Failed",
            "reason": "OutOfnvidia.com/gpu",
            "message": "Node didn't have enough resource: nvidia.com/gpu",
        },
        *(Reason.UNSCHEDULABLE, "enough resource"),
    ),
}


@pytest.mark.parametrize(("status", "reason", "words", "permanent"), LASTING.values(), ids=LASTING.keys())
def test_what_lasts_has_a_reason_and_the_clusters_own_words(
    status: dict[str, Any], reason: Reason, words: str, permanent: bool
) -> None:
    found = diagnose(parsed(pod(**status))).lasting
    assert found is not None
    assert (found.reason, found.is_permanent) == (reason, permanent)
    assert words in found.message
    assert "shoes-a1-abc34-head-x1" in found.message


@pytest.mark.parametrize(("status", "reason", "words"), HAPPENED.values(), ids=HAPPENED.keys())
def test_what_happened_has_a_reason_and_the_clusters_own_words(
    status: dict[str, Any], reason: Reason, words: str
) -> None:
    found = diagnose(parsed(pod(**status))).happened
    assert found is not None
    assert found.reason is reason
    assert words in found.message


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Pending"},
        running(),
        waiting("PodInitializing")
        | {"initContainerStatuses": [container("wait-gcs-ready", running={"startedAt": "2026-11-24T11:59:30Z"})]},
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
    ],
    ids=["just made", "runs", "waits for the head", "held back by a queue"],
)
def test_a_pod_on_its_way_has_nothing_wrong_with_it(status: dict[str, Any]) -> None:
    assert diagnose(parsed(pod(**status))) == Diagnosis()


def test_a_pod_that_is_being_deleted_has_no_trouble_that_lasts() -> None:
    assert diagnose(parsed(pod(deleting=True, **waiting("ImagePullBackOff", NOT_FOUND)))).lasting is None


def test_a_pod_that_is_made_in_silence_is_asked_about() -> None:
    since = datetime(2026, 11, 24, 11, 59, tzinfo=UTC)
    assert diagnose(parsed(pod(**waiting("ContainerCreating")))).silent_since == since
    initializing = waiting("PodInitializing") | {
        "initContainerStatuses": [container("wait-gcs-ready", waiting={"reason": "PodInitializing"})]
    }
    assert diagnose(parsed(pod(**initializing))).silent_since == since
    assert diagnose(parsed(pod(**running()))).silent_since is None
    assert diagnose(parsed(pod(**waiting("ImagePullBackOff")))).silent_since is None


def test_a_container_that_ended_is_known_with_which_of_its_logs_to_read() -> None:
    again = diagnose(parsed(pod(**running(restarts=1, last=ended("Error", 1))))).ended
    assert again is not None
    assert (again.container, again.restarted) == ("ray-head", True)
    over = diagnose(parsed(pod(phase="Failed", containerStatuses=[container(terminated=ended("Error", 1))]))).ended
    assert over is not None
    assert not over.restarted


def test_an_init_container_that_did_its_work_has_no_last_words() -> None:
    started = running() | {"initContainerStatuses": [container("wait-gcs-ready", terminated=ended("Completed", 0))]}
    assert diagnose(parsed(pod(**started))).ended is None
