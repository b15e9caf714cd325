"""The traps in RayJob's status (KubeRay 1.6): each ends in the phase and with the reason that a person would expect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hack.kube import ControlPlane
from tests.controlplane.api import Api, condition, has, is_at_attempt, is_in_phase
from tests.controlplane.jobs import manifest, post, succeeded
from tests.controlplane.kuberay_standin import KubeRayStandIn
from tests.controlplane.operators import kuberay_operator

NAMESPACE = "traps"


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


@pytest.fixture(scope="module")
def traps(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A namespace that one operator serves; each trap is a job of its own."""
    plane.kubectl("create", "namespace", NAMESPACE)
    with kuberay_operator(plane, NAMESPACE, tmp_path_factory.mktemp("traps") / "operator.log"):
        api = Api(plane, NAMESPACE)
        yield api
        api.close()


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_job_ends_rightly_when_kuberay_says(trap: Trap, traps: Api) -> None:
    rayjob, kuberay = f"{trap.name}-a1", KubeRayStandIn(traps)
    traps.create("finetunejobs", manifest(trap.name, **trap.spec))
    if trap.ran:
        kuberay.runs(rayjob)
        traps.until("finetunejobs", trap.name, is_in_phase("Running"))
    else:
        kuberay.initializes(rayjob)
    if trap.trainer_succeeded:
        assert post(kuberay, rayjob, succeeded(1, 1, trap.name)).is_success
    if trap.phase == "Queued":
        traps.patch("rayjobs", rayjob, {"spec": {"suspend": True}})
    kuberay.says(rayjob, **trap.says)
    job = traps.until("finetunejobs", trap.name, is_in_phase(trap.phase))
    assert condition(job, trap.condition)["reason"] == trap.reason
    assert trap.mentions in condition(job, trap.condition)["message"]


def test_a_rayjob_that_somebody_deleted_costs_an_attempt_and_not_the_job(traps: Api) -> None:
    kuberay = KubeRayStandIn(traps)
    traps.create("finetunejobs", manifest("vanished"))
    kuberay.runs("vanished-a1")
    traps.until("finetunejobs", "vanished", is_in_phase("Running"))
    kuberay.vanishes("vanished-a1")
    kuberay.runs("vanished-a2")
    job = traps.until("finetunejobs", "vanished", is_at_attempt(2))
    assert job["status"]["attempts"]["failed"] == 1


def test_a_foreign_rayjob_in_our_place_is_named_and_waited_for_and_never_taken_for_ours(traps: Api) -> None:
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "registry.invalid/theirs"}]}}
    foreign = {"entrypoint": "true", "rayClusterSpec": {"headGroupSpec": {"template": pod}}}
    rayjob = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "squatted-a1"}, "spec": foreign}
    traps.create("rayjobs", rayjob)
    kuberay = KubeRayStandIn(traps)
    kuberay.says("squatted-a1", jobStatus="SUCCEEDED", jobDeploymentStatus="Complete")
    traps.create("finetunejobs", manifest("squatted"))
    job = traps.until("finetunejobs", "squatted", has("ClusterReady", status="False", reason="LauncherUnavailable"))
    assert "squatted-a1 is not Snowmelt's" in condition(job, "ClusterReady")["message"]
    assert job["status"]["phase"] == "Pending"

    traps.delete("rayjobs", "squatted-a1")
    kuberay.runs("squatted-a1")
    traps.until("finetunejobs", "squatted", is_in_phase("Running"), within_s=60)
