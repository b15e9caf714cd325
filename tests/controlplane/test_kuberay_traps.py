"""The traps in RayJob's status (KubeRay 1.6): each ends in the phase and with the reason that a person would expect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.controlplane.api import condition, has, is_at_attempt, is_in_phase
from tests.controlplane.jobs import manifest, post, succeeded
from tests.controlplane.operators import Served


@dataclass(frozen=True)
class Trap:
    """What KubeRay says of a RayJob that ran, whether the trainer reported success before, and what must come of it."""

    name: str
    says: dict[str, Any]
    phase: str
    condition: str
    reason: str
    mentions: str = ""
    trainer_succeeded: bool = False
    ran: bool = True
    spec: dict[str, Any] = field(default_factory=lambda: {"backoffLimit": 0})


GONE = ("Failed", "Failed", "BackoffLimitExceeded")
TRAPS = (
    Trap("stopped", {"jobStatus": "STOPPED", "jobDeploymentStatus": "Complete"}, *GONE, mentions="RunStopped"),
    Trap(
        "invalid",
        {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "name too long"},
        *("Failed", "Failed", "SubmissionFailed"),
        mentions="name too long",
        ran=False,
    ),
    Trap(
        "failed-while-running",
        {"jobStatus": "RUNNING", "jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "head is gone"},
        *GONE,
        mentions="head is gone",
    ),
    Trap(
        "stale-message",
        {"message": "Job has not started yet. It may be waiting for resources."},
        *("Running", "Running", "TrainerRunning"),
    ),
    Trap(
        "failed-though-it-succeeded",
        {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "no dashboard"},
        *("Succeeded", "Complete", "TargetMet"),
        trainer_succeeded=True,
    ),
    Trap(
        "running-for-ever",
        {"jobStatus": "RUNNING"},
        *("Succeeded", "Complete", "TargetMet"),
        trainer_succeeded=True,
    ),
    Trap(
        "silent-success", {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}, *GONE, mentions="NoFinalRecord"
    ),
    Trap(
        "succeeded-deployment-failed",
        {
            "jobStatus": "SUCCEEDED",
            "jobDeploymentStatus": "Failed",
            "reason": "JobDeploymentStatusTransitionGracePeriodExceeded",
        },
        *("Succeeded", "Complete", "TargetMet"),
        trainer_succeeded=True,
    ),
    Trap(
        "never-came-up",
        {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded", "message": "no nodes"},
        *("Failed", "Failed", "StartupDeadlineExceeded"),
        ran=False,
    ),
    Trap(
        "suspended-by-kueue",
        {"jobDeploymentStatus": "Suspended"},
        *("Queued", "Queued", "QueuedByKueue"),
        ran=False,
        spec={"runtime": {"queueName": "team-a"}},
    ),
    Trap(
        "preempted-by-kueue",
        {"jobDeploymentStatus": "Suspended", "jobStatus": ""},
        *("Queued", "Queued", "QueuedByKueue"),
        spec={"runtime": {"queueName": "team-a"}},
    ),
    Trap("cluster-first", {"jobDeploymentStatus": "Running"}, "Starting", "Running", "Starting", ran=False),
)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_job_ends_rightly_when_kuberay_says(trap: Trap, served: Served) -> None:
    api, kuberay, rayjob = served.api, served.kuberay, f"{trap.name}-a1"
    api.create("finetunejobs", manifest(trap.name, **trap.spec))
    if trap.ran:
        kuberay.runs(rayjob)
        api.until("finetunejobs", trap.name, is_in_phase("Running"))
    else:
        kuberay.initializes(rayjob)
    if trap.trainer_succeeded:
        assert post(kuberay, rayjob, succeeded(1, 1, trap.name)).is_success
    if trap.phase == "Queued":
        api.patch("rayjobs", rayjob, {"spec": {"suspend": True}})
    kuberay.says(rayjob, **trap.says)
    job = api.until("finetunejobs", trap.name, is_in_phase(trap.phase))
    assert condition(job, trap.condition)["reason"] == trap.reason
    assert trap.mentions in condition(job, trap.condition)["message"]


def test_a_rayjob_that_somebody_deleted_costs_an_attempt_and_not_the_job(served: Served) -> None:
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest("vanished"))
    kuberay.runs("vanished-a1")
    api.until("finetunejobs", "vanished", is_in_phase("Running"))
    kuberay.vanishes("vanished-a1")
    kuberay.runs("vanished-a2")
    job = api.until("finetunejobs", "vanished", is_at_attempt(2))
    assert job["status"]["attempts"]["failed"] == 1


def test_a_foreign_rayjob_in_our_place_is_named_and_waited_for_and_never_taken_for_ours(served: Served) -> None:
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "registry.invalid/theirs"}]}}
    foreign = {"entrypoint": "true", "rayClusterSpec": {"headGroupSpec": {"template": pod}}}
    rayjob = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "squatted-a1"}, "spec": foreign}
    api, kuberay = served.api, served.kuberay
    api.create("rayjobs", rayjob)
    kuberay.says("squatted-a1", jobStatus="SUCCEEDED", jobDeploymentStatus="Complete")
    api.create("finetunejobs", manifest("squatted"))
    job = api.until("finetunejobs", "squatted", has("ClusterReady", status="False", reason="LauncherUnavailable"))
    assert "squatted-a1 is not Snowmelt's" in condition(job, "ClusterReady")["message"]
    assert job["status"]["phase"] == "Pending"

    api.delete("rayjobs", "squatted-a1")
    kuberay.runs("squatted-a1")
    api.until("finetunejobs", "squatted", is_in_phase("Running"), within_s=60)
