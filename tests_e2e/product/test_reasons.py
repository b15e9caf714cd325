"""A job that cannot run says so within 30 seconds, by a reason of docs/reasons.md in status and as an Event."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product.measured import Measured
from tests_e2e.product.world import ASKS_EVERY_S, Job, Namespace, example

SAID_WITHIN_S = 30.0
ABSENT = "localhost/nobody/nothing:1"
STARTS_WITHIN_S = 180.0


def named(name: str, **spec: Any) -> dict[str, Any]:
    job = example("head-only", output={"uri": f"pvc://models/{name}"}, **spec)
    job["metadata"]["name"] = name
    return job


def await_reason(job: Job, reason: str, since: float, within_s: float = SAID_WITHIN_S) -> float:
    """Until incidents and Events have the reason; seconds since `since`, a time of the Unix epoch."""
    for said, where in ((job.incident, "incident"), (job.events, "Event")):
        left = since + within_s - time.time()
        eventually(lambda said=said: bool(said(reason)), f"no {where} {reason}", left, ASKS_EVERY_S)
    return time.time() - since


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


def test_a_quota_that_refuses_only_the_submitter_is_said_30_seconds_after_the_cluster_is_up(
    namespace: Namespace, measured: Measured
) -> None:
    """KubeRay says nothing of it: the pod is its Job's, made once head and worker are ready."""
    set_quota(namespace, pods="2")
    job = namespace.apply(named("no-submitter"))
    eventually(lambda: is_up(job), "the Ray cluster is not up", STARTS_WITHIN_S, ASKS_EVERY_S)
    measured("QuotaExceeded of the submitter in status", await_reason(job, "QuotaExceeded", time.time()))
    assert "small" in job.incident("QuotaExceeded")["message"]
    set_quota(namespace, pods="3")
    job.complete()


def is_up(job: Job) -> bool:
    """Whether KubeRay has made the Job that submits."""
    return bool(job.namespace.get("jobs")["items"])


TOO_LITTLE = {"200Mi": ("Error", "ContainerCrashLoopBackOff"), "360Mi": ("OOMKilled", "ContainerOOMKilled")}
"""Memory that Ray refuses to begin with, and memory that it begins with and does not get along with."""


@pytest.mark.core
@pytest.mark.parametrize("memory", TOO_LITTLE)
def test_a_worker_with_too_little_memory_is_named_in_30_seconds(
    namespace: Namespace, measured: Measured, memory: str
) -> None:
    how, reason = TOO_LITTLE[memory]
    resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    job = namespace.apply(named("greedy", workers={"resources": resources}))
    ended: list[float] = []

    def has_ended() -> bool:
        ended.extend(ended_at(pod, how) for pod in job.pods("worker"))
        return any(ended)

    eventually(has_ended, f"no worker ended by {how}", STARTS_WITHIN_S, ASKS_EVERY_S)
    measured(f"{reason} in status", await_reason(job, reason, max(ended)))
    if reason == "ContainerCrashLoopBackOff":
        assert "object store memory" in job.incident(reason)["log"]


def ended_at(pod: dict[str, Any], how: str) -> float:
    """When a container of the pod ended in a certain way; 0 when none did."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if state.get("terminated", {}).get("reason") == how:
                return datetime.fromisoformat(state["terminated"]["finishedAt"]).timestamp()
    return 0.0


@pytest.mark.core
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
