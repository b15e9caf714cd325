"""What a RayJob's status means (KubeRay 1.6 and 1.7). Pure; every trap that is known has a row in the tests."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import HANDED_OVER, Run, RunPhase
from snowmelt_operator.api.trouble import Trouble
from snowmelt_operator.pods.refusal import refusal
from snowmelt_operator.render.labelled import OfAttempt, Part
from snowmelt_operator.render.names import QUEUE_LABEL


class _Spec(Part):
    suspend: bool = False


class _ClusterCondition(Part):
    type: str
    status: str
    message: str = ""
    last_transition_time: datetime | None = None


class _ClusterStatus(Part):
    state: str = ""
    reason: str = ""
    conditions: tuple[_ClusterCondition, ...] = ()


class _Status(Part):
    job_status: str = ""
    job_deployment_status: str = ""
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    dashboard_url: str | None = Field(default=None, alias="dashboardURL")
    ray_cluster_name: str = ""
    ray_cluster_status: _ClusterStatus = _ClusterStatus()


class RayJob(OfAttempt):
    """The parts of a RayJob that matter here."""

    spec: _Spec = _Spec()
    status: _Status = _Status()

    def refusals(self) -> tuple[Trouble, ...]:
        """Why pods of it cannot be made, in the API server's words, which KubeRay writes into a condition."""
        failure = next((c for c in self.status.ray_cluster_status.conditions if c.type == "ReplicaFailure"), None)
        found = refusal(failure.message) if failure is not None and failure.status == "True" else None
        if failure is None or found is None or failure.last_transition_time is None:
            return ()
        since = failure.last_transition_time
        return (Trouble(found.reason, found.message, None, since, is_permanent=found.is_permanent),)

    def run(self) -> Run:
        """The attempt as this RayJob tells of it."""
        phase, reason, message = _phase(self)
        return Run(
            name=self.metadata.name,
            attempt=self.attempt,
            phase=phase,
            reason=reason,
            message=message,
            cluster_ready=self.status.ray_cluster_status.state == "ready" or phase is RunPhase.RUNNING,
            started_at=self.status.start_time,
            dashboard_url=self.status.dashboard_url,
            ray_cluster=self.status.ray_cluster_name,
            # KubeRay makes the submitter's Job once the head is ready, whatever it says of the cluster as a whole.
            awaits_submission=phase is RunPhase.STARTING and self.status.job_deployment_status == "Running",
            stopping=self.metadata.deletion_timestamp is not None,
        )


def _phase(rayjob: RayJob) -> tuple[RunPhase, str, str]:  # noqa: PLR0911  one case, one answer
    """Phase, reason and message. The deployment status wins over the job's (kuberay#2314).

    status.message is only read where it was just written: KubeRay leaves an old one in place elsewhere.
    """
    status = rayjob.status
    match status.job_deployment_status:
        case "Complete":
            return _complete(status)
        case "Failed":
            return RunPhase.FAILED, _FAILED_REASONS.get(status.reason, status.reason), status.message
        case "ValidationFailed":
            return RunPhase.FAILED, Reason.SUBMISSION_FAILED, status.message or "KubeRay found the RayJob invalid"
        case "Suspending" | "Suspended":
            return _held_back(rayjob)
        case "Running" if status.job_status == "RUNNING" or status.job_status in _COMPLETE:
            # A job status that is final is believed once the deployment status is final too.
            return RunPhase.RUNNING, "", ""
        case "Initializing" | "Running" | "Retrying" | "Waiting":
            return RunPhase.STARTING, "", _waiting_for(status.ray_cluster_status)
        case _ if rayjob.spec.suspend:
            return _held_back(rayjob)
        case _:
            return RunPhase.PENDING, "", HANDED_OVER


def _complete(status: _Status) -> tuple[RunPhase, str, str]:
    """`Complete` means that Ray's job ended, stopped ones included; only its own status says how."""
    phase = _COMPLETE.get(status.job_status)
    if phase is None:
        return RunPhase.FAILED, "", f"the RayJob is Complete and its job {status.job_status or 'has no status'}"
    return phase, "", status.message if phase is RunPhase.FAILED else ""


_COMPLETE = {"SUCCEEDED": RunPhase.SUCCEEDED, "FAILED": RunPhase.FAILED, "STOPPED": RunPhase.STOPPED}

_FAILED_REASONS = {
    "PreRunningDeadlineExceeded": Reason.STARTUP_DEADLINE_EXCEEDED,
    "ValidationFailed": Reason.SUBMISSION_FAILED,
    # KubeRay's word for a submitter pod that failed, which another attempt may cure; ours means: refused for good.
    "SubmissionFailed": "SubmitterFailed",
}


def _held_back(rayjob: RayJob) -> tuple[RunPhase, str, str]:
    queue = rayjob.metadata.labels.get(QUEUE_LABEL)
    if queue:
        return RunPhase.QUEUED, "", f"waiting in queue {queue}"
    name = rayjob.metadata.name
    return RunPhase.SUSPENDED, "", f"somebody set spec.suspend of RayJob {name}: set it to false there to go on"


def _waiting_for(cluster: _ClusterStatus) -> str:
    """What keeps the Ray cluster from being ready, such as an image that cannot be pulled."""
    head = next((c.message for c in cluster.conditions if c.type == "HeadPodReady" and c.status != "True"), "")
    return head or cluster.reason or ("" if cluster.state == "ready" else "the Ray cluster is not ready yet")
