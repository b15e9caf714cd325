"""A job that cannot run says so within 30 seconds, by a reason of docs/reasons.md in status and as an Event."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from hack.kube.cluster.images import PAUSE
from hack.kube.controlplane import ControlPlaneError, eventually
from tests_e2e.product.jobs import ASKS_EVERY_S, SLOT, Job, example, long_job
from tests_e2e.product.measured import Measured
from tests_e2e.product.said import SAID_WITHIN_S, await_reason
from tests_e2e.product.watching import CheckpointWatch, trained_once
from tests_e2e.product.world import RESTRICTED, Namespace, World

ABSENT = "localhost/nobody/nothing:1"
STARTS_WITHIN_S = 180.0


def named(name: str, **spec: Any) -> dict[str, Any]:
    job = example("head-only", output={"uri": f"pvc://models/{name}"}, **spec)
    job["metadata"]["name"] = name
    return job


CANNOT_START: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-image": ({"runtime": {"image": ABSENT}}, "ImagePullError", ABSENT),
    "no-room": ({"workers": {"resources": {"requests": {"cpu": "4000"}}}}, "Unschedulable", "Insufficient cpu"),
    "no-claim": ({"data": {"train": {"uri": "pvc://nowhere/train"}, "imageSize": 32}}, "VolumeError", "nowhere"),
    "no-class": ({"runtime": {"priorityClassName": "imaginary"}}, "PodRefused", "imaginary"),
}


@pytest.mark.core
@pytest.mark.parametrize("name", CANNOT_START)
def test_a_job_that_cannot_start_says_why_in_30_seconds(namespace: Namespace, measured: Measured, name: str) -> None:
    spec, reason, words = CANNOT_START[name]
    applied = time.time()
    job = namespace.apply(named(name, **spec))
    measured(f"{reason} in status", await_reason(job, reason, applied))
    assert words in job.incident(reason)["message"]
    assert job.condition("ClusterReady")["reason"] == reason


def set_quota(namespace: Namespace, **hard: str) -> None:
    metadata = {"name": "small", "namespace": namespace.name}
    namespace.world.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}})
    eventually(lambda: "hard" in namespace.get("resourcequota", "small").get("status", {}), "no quota")


def test_a_job_over_the_namespaces_quota_says_so_in_30_seconds(namespace: Namespace, measured: Measured) -> None:
    set_quota(namespace, **{"requests.cpu": "500m"})
    applied = time.time()
    job = namespace.apply(named("poor", workers={"resources": {"requests": {"cpu": "250m"}}}))
    measured("QuotaExceeded in status", await_reason(job, "QuotaExceeded", applied))
    assert "small" in job.incident("QuotaExceeded")["message"]


def test_a_quota_that_refuses_only_the_submitter_is_said_in_30_seconds(
    namespace: Namespace, measured: Measured
) -> None:
    """KubeRay says nothing of it: the pod is its Job's, made once head and worker are ready."""
    already = len(namespace.get("pods")["items"])
    set_quota(namespace, pods=str(already + 2))
    job = namespace.apply(named("no-submitter"))
    eventually(lambda: is_up(job), "the Ray cluster is not up", STARTS_WITHIN_S, ASKS_EVERY_S)
    measured("QuotaExceeded of the submitter in status", await_reason(job, "QuotaExceeded", time.time()))
    assert "small" in job.incident("QuotaExceeded")["message"]
    set_quota(namespace, pods=str(already + 3))
    job.complete()


def is_up(job: Job) -> bool:
    """Whether KubeRay has made the Job that submits."""
    return bool(job.namespace.get("jobs")["items"])


def memory(limit: str) -> dict[str, Any]:
    """Workers that get so much memory."""
    return {"resources": {"requests": {"memory": limit}, "limits": {"memory": limit}}}


@pytest.mark.core
def test_a_worker_with_less_memory_than_ray_begins_with_is_named_in_30_seconds(
    namespace: Namespace, measured: Measured
) -> None:
    job = namespace.apply(named("greedy", workers=memory("200Mi")))
    ended: list[float] = []

    def has_ended() -> bool:
        ended.extend(failed_at(pod) for pod in job.pods("worker"))
        return any(ended)

    eventually(has_ended, "no worker ended", STARTS_WITHIN_S, ASKS_EVERY_S)
    reason = "ContainerCrashLoopBackOff"
    measured(f"{reason} in status", await_reason(job, reason, max(ended)))
    assert "object store memory" in job.incident(reason)["log"]


def failed_at(pod: dict[str, Any]) -> float:
    """When a container of the pod ended in an error; 0 when none did."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if state.get("terminated", {}).get("reason") == "Error":
                return datetime.fromisoformat(state["terminated"]["finishedAt"]).timestamp()
    return 0.0


def test_a_job_whose_workers_have_too_little_memory_to_train_says_so(namespace: Namespace) -> None:
    """Ray ends a worker before the kernel has to, so that no container is killed."""
    job = namespace.apply(named("greedy", workers=memory("360Mi"), backoffLimit=0))
    eventually(job.has_ended, "it does not end", STARTS_WITHIN_S, ASKS_EVERY_S)
    assert "the last one: OutOfMemory: " in job.condition("Failed")["message"], job.condition("Failed")


def test_a_worker_whose_container_the_kernel_kills_for_memory_is_named_in_30_seconds(
    namespace: Namespace, measured: Measured
) -> None:
    job = namespace.apply(named("greedy", workers=memory("1536Mi"), unfreezing=ENDLESS))
    job.await_epoch(1)
    (worker,) = job.pods("worker")
    use_up_memory(job, worker["metadata"]["name"])
    measured("ContainerOOMKilled in status", await_reason(job, "ContainerOOMKilled", time.time()))


USE_UP_MEMORY = """
echo 1000 > /proc/1/oom_score_adj
for _ in $(seq 60); do (head -c 40M /dev/zero; sleep 60) | tail -c 40M > /dev/null & done
wait
"""
"""In many small bites, so that the kernel takes the first process of the container and not the one that bites."""


def use_up_memory(job: Job, pod: str) -> None:
    with pytest.raises(ControlPlaneError):
        job.namespace.kubectl("exec", pod, "-n", job.namespace.name, "--", "sh", "-c", USE_UP_MEMORY)


def test_a_job_past_its_deadlines_fails_in_30_seconds_and_says_what_it_waited_for(
    namespace: Namespace, measured: Measured
) -> None:
    deadline = 60
    applied = time.time()
    late = namespace.apply(
        named("late", startupDeadlineSeconds=deadline, workers={"resources": {"requests": {"cpu": "4000"}}})
    )
    long = namespace.apply(named("long", activeDeadlineSeconds=deadline, unfreezing=ENDLESS))
    for job, reason in ((late, "StartupDeadlineExceeded"), (long, "DeadlineExceeded")):
        left = applied + deadline + SAID_WITHIN_S - time.time()
        eventually(lambda job=job: job.has_ended(), f"{job.name} goes on", left, ASKS_EVERY_S)
        measured(f"{reason} after the deadline", time.time() - applied - deadline)
        assert job.condition("Failed")["reason"] == reason
        eventually(lambda job=job, reason=reason: bool(job.events(reason)), f"no Event {reason}")
        eventually(lambda job=job: job.pods() == [], f"pods of {job.name} stay")
    assert "Insufficient cpu" in late.condition("Failed")["message"]


ENDLESS = {"strategy": "Full", "stage": {"maxEpochs": 500, "patience": 500}}


URGENT = "urgent"


@pytest.fixture
def urgent(world: World) -> Iterator[None]:
    """A class of pods that come before ours."""
    world.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": URGENT}, "value": 1000}
    )
    yield
    world.kubectl("delete", "priorityclass", URGENT)


@pytest.mark.breaks
@pytest.mark.usefixtures("urgent")
def test_a_worker_that_must_make_room_for_a_more_important_pod_is_preempted_and_the_job_goes_on(
    namespace: Namespace, measured: Measured
) -> None:
    job = namespace.apply(long_job("pushed", epochs=14))
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(2)
        namespace.world.apply(urgent_pod(namespace.name))
        measured("Preempted in status", await_reason(job, "Preempted", time.time()))
        namespace.kubectl("delete", "pod", URGENT, "-n", namespace.name, "--grace-period=0", "--force")
        status = job.complete()
    assert trained_once(watch, job)
    assert status["attempts"]["current"] == 1


def test_a_worker_that_is_evicted_is_named_and_replaced(namespace: Namespace, measured: Measured) -> None:
    job = namespace.apply(long_job("drained", epochs=14))
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(2)
        evict(job, job.pods("worker")[0]["metadata"]["name"])
        measured("PodEvicted in status", await_reason(job, "PodEvicted", time.time()))
        status = job.complete()
    assert trained_once(watch, job)
    assert status["attempts"]["current"] == 1


def evict(job: Job, pod: str) -> None:
    """As `kubectl drain` does."""
    name = {"name": pod, "namespace": job.namespace.name}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name})
    path = f"/api/v1/namespaces/{job.namespace.name}/pods/{pod}/eviction"
    job.namespace.kubectl("create", "--raw", path, "-f", "-", stdin=eviction)


def urgent_pod(namespace: str) -> dict[str, Any]:
    """A pod that wants the slot of a node, which has no other."""
    container = {
        "name": "pause",
        "image": PAUSE,
        "imagePullPolicy": "Never",
        "securityContext": RESTRICTED,
        "resources": {"requests": {SLOT: "1"}, "limits": {SLOT: "1"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": URGENT, "namespace": namespace},
        "spec": {"priorityClassName": URGENT, "containers": [container]},
    }
