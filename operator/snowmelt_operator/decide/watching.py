"""The last rule: an attempt is under way, and the status says how it is."""

from __future__ import annotations

from datetime import timedelta

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import Run, RunPhase
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.decide import clock
from snowmelt_operator.decide.conditions import Says
from snowmelt_operator.decide.outcomes import accepted, checkpoint, status
from snowmelt_operator.decide.state import Decision, Observed, find_condition

STALL = timedelta(minutes=10)
"""A trainer that is silent for so long is called stalled."""


def watching(seen: Observed) -> Decision:
    job, run = seen.job, seen.run
    assert isinstance(job, FineTuneJob)
    assert run is not None  # `run_ended` and `launch` come before
    says = [accepted(), checkpoint(seen), _cluster_ready(run), _running(run), _progressing(seen, run)]
    queued = find_condition(job.status.conditions, ConditionType.QUEUED)
    if run.phase.is_held_back:
        reason = Reason.QUEUED_BY_KUEUE if run.phase is RunPhase.QUEUED else Reason.HELD_BACK
        says.append(Says(ConditionType.QUEUED, "True", reason, run.message))
    elif queued is not None and queued.status == "True":
        says.append(Says(ConditionType.QUEUED, "False", Reason.ADMITTED))
    attempts = seen.attempts
    if run.phase.is_held_back and clock.active_since(seen) is not None:  # put back into the queue
        attempts = attempts.model_copy(update={"active_seconds": int(clock.active_time(seen).total_seconds())})
    waits = [
        clock.until_deadline(seen, job.spec),
        clock.until_startup_deadline(seen, job.spec),
        _until_stall(seen, run),
    ]
    return Decision(
        "watching",
        status=status(seen, says, attempts=attempts, run_name=run.name),
        recheck_after=min((wait for wait in waits if wait is not None), default=None),
    )


def _cluster_ready(run: Run) -> Says:
    if run.cluster_ready:
        return Says(ConditionType.CLUSTER_READY, "True", Reason.CLUSTER_UP)
    return Says(ConditionType.CLUSTER_READY, "False", Reason.STARTING, run.message)


def _running(run: Run) -> Says:
    if run.stopping:
        return Says(ConditionType.RUNNING, "False", Reason.STOPPING)
    if run.phase is RunPhase.RUNNING:
        return Says(ConditionType.RUNNING, "True", Reason.TRAINER_RUNNING)
    return Says(ConditionType.RUNNING, "False", Reason.STARTING, run.message)


def _silent_for(seen: Observed) -> timedelta | None:
    """How long the trainer of this attempt has been silent; None before its first word."""
    trainer, progress = seen.job.status.trainer, seen.job.status.progress
    if trainer is None or trainer.attempt != seen.attempts.current or progress is None:
        return None
    return seen.now - progress.last_update_time if progress.last_update_time is not None else None


def _progressing(seen: Observed, run: Run) -> Says:
    silent = _silent_for(seen)
    if silent is None:
        return Says(ConditionType.PROGRESSING, "False", Reason.NO_REPORT_YET)
    if silent < STALL or run.phase is not RunPhase.RUNNING:
        return Says(ConditionType.PROGRESSING, "True", Reason.REPORTING)
    minutes = int(STALL.total_seconds() // 60)
    message = f"the trainer has reported nothing for {minutes} minutes: look at its log"
    return Says(ConditionType.PROGRESSING, "False", Reason.STALLED, message)


def _until_stall(seen: Observed, run: Run) -> timedelta | None:
    silent = _silent_for(seen)
    return STALL - silent if silent is not None and silent < STALL and run.phase is RunPhase.RUNNING else None
