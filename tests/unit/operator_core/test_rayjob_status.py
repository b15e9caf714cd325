"""What a RayJob's status means; a row for every trap that is known of KubeRay."""

from __future__ import annotations

from typing import Any

import pytest

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.launchers.rayjob_status import RayJob
from tests.unit.operator_core.building import UID

LABELS = {"snowmelt.dev/job": "shoes", "snowmelt.dev/uid": UID, "snowmelt.dev/attempt": "1"}


def rayjob(*, suspend: bool = False, queue: str = "", **status: Any) -> RayJob:
    labels = LABELS | ({"kueue.x-k8s.io/queue-name": queue} if queue else {})
    metadata = {"name": "shoes-a1", "namespace": "team", "uid": "u", "resourceVersion": "7", "labels": labels}
    parsed = RayJob.parse({"metadata": metadata, "spec": {"suspend": suspend, "entrypoint": "x"}, "status": status})
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("deployment", "job", "reason", "phase", "told"),
    [
        pytest.param("", "", "", RunPhase.PENDING, "", id="not taken up"),
        pytest.param("Initializing", "", "", RunPhase.STARTING, "", id="the cluster starts"),
        pytest.param("Running", "", "", RunPhase.STARTING, "", id="the job is not submitted"),
        pytest.param("Running", "PENDING", "", RunPhase.STARTING, "", id="the driver starts"),
        pytest.param("Running", "RUNNING", "", RunPhase.RUNNING, "", id="the driver runs"),
        pytest.param("Running", "FAILED", "", RunPhase.RUNNING, "", id="not final until the deployment is"),
        pytest.param("Complete", "SUCCEEDED", "", RunPhase.SUCCEEDED, "", id="ended well"),
        pytest.param("Complete", "STOPPED", "", RunPhase.STOPPED, "", id="trap 1: stopped is Complete too"),
        pytest.param("Complete", "FAILED", "AppFailed", RunPhase.FAILED, "", id="Complete is no success"),
        pytest.param("Complete", "", "", RunPhase.FAILED, "", id="Complete without a job status"),
        pytest.param("Complete", "RUNNING", "", RunPhase.FAILED, "", id="Complete with a stale job status"),
        pytest.param(
            "ValidationFailed",
            "",
            "ValidationFailed",
            RunPhase.FAILED,
            Reason.SUBMISSION_FAILED,
            id="trap 2: terminal though KubeRay does not call it so",
        ),
        pytest.param("Failed", "RUNNING", "AppFailed", RunPhase.FAILED, "AppFailed", id="trap 3: the deployment wins"),
        pytest.param(
            "Failed",
            "SUCCEEDED",
            "JobDeploymentStatusTransitionGracePeriodExceeded",
            RunPhase.FAILED,
            "JobDeploymentStatusTransitionGracePeriodExceeded",
            id="failed though Ray succeeded",
        ),
        pytest.param(
            "Failed",
            "",
            "PreRunningDeadlineExceeded",
            RunPhase.FAILED,
            Reason.STARTUP_DEADLINE_EXCEEDED,
            id="KubeRay's own startup deadline",
        ),
        pytest.param(
            "Failed",
            "",
            "SubmissionFailed",
            RunPhase.FAILED,
            "SubmitterFailed",
            id="a submitter pod that failed is retried",
        ),
        pytest.param(
            "Failed",
            "",
            "JobStatusCheckTimeoutExceeded",
            RunPhase.FAILED,
            "JobStatusCheckTimeoutExceeded",
            id="a reason of 1.7",
        ),
        pytest.param("Suspending", "RUNNING", "", RunPhase.SUSPENDED, "", id="being suspended"),
        pytest.param("Suspended", "", "", RunPhase.SUSPENDED, "", id="suspended by hand"),
        pytest.param("Retrying", "FAILED", "", RunPhase.STARTING, "", id="KubeRay retries"),
        pytest.param("Waiting", "", "", RunPhase.STARTING, "", id="KubeRay waits"),
        pytest.param("SomethingNew", "", "", RunPhase.PENDING, "", id="a status of a later release"),
    ],
)
def test_status(deployment: str, job: str, reason: str, phase: RunPhase, told: str) -> None:
    run = rayjob(jobDeploymentStatus=deployment, jobStatus=job, reason=reason).run()
    assert run.phase is phase
    if phase is RunPhase.FAILED and deployment != "Complete":
        assert run.reason == told


def test_a_message_of_an_earlier_time_is_not_repeated() -> None:
    stale = rayjob(jobDeploymentStatus="Running", jobStatus="RUNNING", message="the submitter failed once").run()
    assert stale.message == ""


def test_a_rayjob_that_kueue_holds_back_is_queued_before_and_after_kuberay_has_seen_it() -> None:
    for status in ({}, {"jobDeploymentStatus": "Suspended"}):
        run = rayjob(suspend=True, queue="gpus", **status).run()
        assert (run.phase, run.message) == (RunPhase.QUEUED, "waiting in queue gpus")


def test_the_head_pods_trouble_is_told() -> None:
    trouble = {"type": "HeadPodReady", "status": "False", "message": "ErrImagePull: no such image"}
    cluster = {"state": "", "conditions": [trouble]}
    assert rayjob(jobDeploymentStatus="Initializing", rayClusterStatus=cluster).run().message == trouble["message"]


def test_a_rayjob_without_our_labels_is_not_ours() -> None:
    assert RayJob.parse({"metadata": {"name": "theirs", "labels": {"app": "x"}}}) is None
    assert RayJob.parse({"metadata": {"name": "theirs"}}) is None
    assert RayJob.parse({"metadata": {"name": "odd", "labels": LABELS | {"snowmelt.dev/attempt": "one"}}}) is None
