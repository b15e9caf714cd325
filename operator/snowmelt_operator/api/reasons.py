"""Reasons that the operator itself gives. The trainer's are in `snowmelt_trainer.contract.reasons`."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word for machines; docs/reasons.md is generated from here."""

    SPEC_VALID = "SpecValid"
    """Accepted: the spec can be carried out."""
    INVALID_SPEC = "InvalidSpec"
    """Accepted=False and Failed: the stored spec breaks a rule; the message names each field and the
    remedy. Correct it in a new FineTuneJob."""

    QUEUED_BY_KUEUE = "QueuedByKueue"
    """Queued: Kueue holds the RayJob back until its queue has room."""
    HELD_BACK = "HeldBack"
    """Queued: somebody set spec.suspend of the RayJob by hand; set it back to false there."""
    ADMITTED = "Admitted"
    """Queued=False: the queue let the job go."""

    NOT_LAUNCHED = "NotLaunched"
    """ClusterReady=False and Running=False: no attempt is under way."""
    STARTING = "Starting"
    """ClusterReady=False or Running=False: the attempt was launched and is not running yet."""
    CLUSTER_UP = "ClusterUp"
    """ClusterReady: the Ray cluster of the attempt is up."""
    TRAINER_RUNNING = "TrainerRunning"
    """Running: the trainer's process runs."""
    RETRYING = "Retrying"
    """Event: an attempt failed and another was started; it goes on from the last checkpoint."""
    LAUNCHED = "Launched"
    """Event: an attempt was started."""
    LAUNCHER_UNAVAILABLE = "LauncherUnavailable"
    """ClusterReady=False or Unknown: Ray cannot be reached, or does not take the attempt now; it is tried again."""

    REPORTING = "Reporting"
    """Progressing: the trainer reports progress."""
    NO_REPORT_YET = "NoReportYet"
    """Progressing=False: this attempt has not reported anything yet."""
    STALLED = "Stalled"
    """Progressing=False: the trainer runs, and has reported nothing for ten minutes; look at its log."""
    ENDED = "Ended"
    """ClusterReady=False, Running=False and Progressing=False: the job is over."""

    CHECKPOINT_WRITTEN = "CheckpointWritten"
    """CheckpointAvailable: another attempt would go on from this checkpoint."""
    NO_CHECKPOINT_YET = "NoCheckpointYet"
    """CheckpointAvailable=False: another attempt would start anew."""

    SUSPENDED_BY_USER = "SuspendedByUser"
    """Suspended: spec.suspend is true, and nothing runs."""
    STOPPING = "Stopping"
    """Suspended=False, Running=False: the attempt was asked to stop, and has not ended yet."""
    RESUMED = "Resumed"
    """Suspended=False: spec.suspend is false again; the next attempt goes on from the last checkpoint."""

    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """Failed: the job was active for longer than spec.activeDeadlineSeconds."""
    STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"
    """Failed: the trainer did not run within spec.startupDeadlineSeconds; the message says what it was waiting for."""
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    """Failed: more attempts failed than spec.backoffLimit allows; the message has the last one's reason."""
    SUBMISSION_FAILED = "SubmissionFailed"
    """Failed: the API server, KubeRay or Ray refused the attempt for good; the message has its words."""

    RUN_FAILED = "RunFailed"
    """An attempt's process failed and left no final record."""
    RUN_STOPPED = "RunStopped"
    """An attempt was stopped, and not by Snowmelt."""
    RUN_VANISHED = "RunVanished"
    """An attempt is not there any more: somebody deleted its RayJob, or Ray was started anew."""
    NO_FINAL_RECORD = "NoFinalRecord"
    """An attempt's process ended well and its final record never arrived; the next attempt finds it in storage."""
