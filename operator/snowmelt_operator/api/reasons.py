"""Reasons that the operator itself gives. The trainer's are in `snowmelt_trainer.contract.reasons`.

Under each: where it is seen and what causes it; then, after "Remedy:", what a person can do.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word for machines; docs/reasons.md is generated from here."""

    SPEC_VALID = "SpecValid"
    """Accepted: the spec can be carried out."""
    INVALID_SPEC = "InvalidSpec"
    """Accepted=False and Failed: the stored spec breaks a rule; the message names each field. Remedy: correct it in a
    new FineTuneJob."""

    QUEUED_BY_KUEUE = "QueuedByKueue"
    """Queued: Kueue holds the RayJob back until its queue has room."""
    HELD_BACK = "HeldBack"
    """Queued: somebody set spec.suspend of the RayJob by hand. Remedy: set it back to false there."""
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
    """Event: an attempt failed, and another starts after a delay; it goes on from the last checkpoint. Remedy: that of
    the reason which the message names."""
    BACK_OFF = "BackOff"
    """Running=False: an attempt failed, and the message says when the next one starts. Each failure without a new
    checkpoint doubles the delay. Remedy: that of the reason which the message names."""
    LAUNCHED = "Launched"
    """Event: an attempt was started."""
    LAUNCHER_UNAVAILABLE = "LauncherUnavailable"
    """ClusterReady=False or Unknown: Ray cannot be reached, or does not take the attempt now; it is tried again.
    Remedy: see whether KubeRay or Ray runs, and what the message says."""

    REPORTING = "Reporting"
    """Progressing: the trainer reports progress."""
    NO_REPORT_YET = "NoReportYet"
    """Progressing=False: this attempt has not reported anything yet."""
    STALLED = "Stalled"
    """Progressing=False: the trainer runs, and has reported nothing for SNOWMELT_STALL_SECONDS. After
    SNOWMELT_STALL_GRACE_SECONDS more the attempt is stopped and counts as failed. Remedy: look at its log; the
    storage or one worker may hang, or the operator's progress endpoint be out of its reach."""
    ENDED = "Ended"
    """ClusterReady=False, Running=False and Progressing=False: the job is over."""

    CACHE_GIVEN_UP = "CacheGivenUp"
    """Degraded: the cache of the frozen layers' activations failed, for instance because the local disk was full;
    training goes on without it, and takes longer. Remedy: free some space, or lower
    spec.optimization.cache.maxBytes."""

    CHECKPOINT_WRITTEN = "CheckpointWritten"
    """CheckpointAvailable: another attempt would go on from this checkpoint."""
    NO_CHECKPOINT_YET = "NoCheckpointYet"
    """CheckpointAvailable=False: another attempt would start anew."""

    SUSPENDED_BY_USER = "SuspendedByUser"
    """Suspended: spec.suspend is true, and nothing runs. Remedy: set spec.suspend to false."""
    STOPPING = "Stopping"
    """Suspended=False, Running=False: the attempt was asked to stop, and has not ended yet."""
    RESUMED = "Resumed"
    """Suspended=False: spec.suspend is false again; the next attempt goes on from the last checkpoint."""

    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """Failed: the job was active for longer than spec.activeDeadlineSeconds. Remedy: raise it in a new FineTuneJob,
    which goes on from the checkpoint where its output is the same."""
    STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"
    """Failed: the trainer did not run within spec.startupDeadlineSeconds; the message says what it was waiting for.
    Remedy: that of the reason which the message names; or raise the deadline."""
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    """Failed: more attempts failed than spec.backoffLimit allows; the message has the last one's reason. Remedy: that
    of the last reason; status.incidents has them all."""
    SUBMISSION_FAILED = "SubmissionFailed"
    """Failed: the API server, KubeRay or Ray refused the attempt for good; the message has its words. Remedy: correct
    what they name in a new FineTuneJob."""

    RUN_FAILED = "RunFailed"
    """An attempt's process failed and left no final record, and nothing is known of its pods. Remedy: read
    status.incidents, which keeps the end of its log."""
    RUN_STOPPED = "RunStopped"
    """An attempt was stopped, and not by Snowmelt. Remedy: see who stopped it; another attempt is made."""
    RUN_VANISHED = "RunVanished"
    """An attempt is not there any more: somebody deleted its RayJob, or Ray was started anew. Remedy: none is needed,
    another attempt is made."""
    NO_FINAL_RECORD = "NoFinalRecord"
    """An attempt's process ended well and its final record never arrived; the next attempt finds it in storage.
    Remedy: see whether the trainer reaches the operator's progress endpoint."""

    IMAGE_PULL_ERROR = "ImagePullError"
    """ClusterReady=False, and Failed after SNOWMELT_IMAGE_PULL_GRACE_SECONDS: a node cannot pull the image. Remedy:
    correct the name in spec.runtime.image, or give credentials with spec.runtime.imagePullSecrets."""
    CONTAINER_START_ERROR = "ContainerStartError"
    """ClusterReady=False, and Failed after SNOWMELT_START_GRACE_SECONDS: a container cannot be made or started, for
    instance because a Secret or a command is not there. Remedy: make what the message names, or correct
    spec.runtime."""
    CONTAINER_CRASH_LOOP_BACK_OFF = "ContainerCrashLoopBackOff"
    """ClusterReady=False: a container ends again and again. After SNOWMELT_START_GRACE_SECONDS the attempt counts as
    failed. Remedy: read the end of its log in status.incidents; an image without Ray does this."""
    CONTAINER_OOM_KILLED = "ContainerOOMKilled"
    """A container used more than its memory limit, and was killed. The attempt goes on with a new pod, or fails and
    is retried. Remedy: raise the limit in spec.workers.resources, or lower spec.optimization.batchSize."""
    UNSCHEDULABLE = "Unschedulable"
    """ClusterReady=False: no node has room for a pod, in the scheduler's words; it waits until
    spec.startupDeadlineSeconds. Remedy: ask for less, add nodes, or correct nodeSelector and tolerations."""
    POD_EVICTED = "PodEvicted"
    """A pod was evicted: its node ran short of memory or disk, or is being drained. Remedy: request what the pods use;
    otherwise none is needed, another attempt is made where this one cannot go on."""
    NODE_LOST = "NodeLost"
    """A pod's node went away, did not answer any more, or was tainted NoExecute. Remedy: none is needed, another
    attempt is made where this one cannot go on."""
    PREEMPTED = "Preempted"
    """A pod of higher priority took a pod's place. Remedy: spec.runtime.priorityClassName; otherwise none is needed."""
    VOLUME_ERROR = "VolumeError"
    """ClusterReady=False: a volume cannot be found, bound or mounted. A claim that does not exist fails the job after
    SNOWMELT_VOLUME_GRACE_SECONDS. Remedy: create the claim, or correct the pvc:// URI."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """ClusterReady=False: the namespace's quota leaves no room for a pod. Where the pod alone asks for more than the
    whole quota, the job fails after SNOWMELT_START_GRACE_SECONDS. Remedy: ask for less, or raise the quota."""
    POD_REFUSED = "PodRefused"
    """ClusterReady=False, and Failed after SNOWMELT_START_GRACE_SECONDS: the API server takes no such pod, for instance
    because of a LimitRange, Pod Security, or a missing service account or priority class. Remedy: correct what the
    message names."""
