"""How long a job has been active, and how long until something is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.api.status import Attempts
from snowmelt_operator.api.v1alpha1 import FineTuneJobSpec
from snowmelt_operator.decide.state import Observed, find_condition


def active_since(seen: Observed) -> datetime | None:
    """When the current attempt was launched, or left its queue if that was later. None while nothing is active."""
    started = seen.attempts.started_at
    if started is None:
        return None
    queued = find_condition(seen.job.status.conditions, ConditionType.QUEUED)
    if queued is None:
        return None if seen.run is not None and seen.run.phase.is_held_back else started
    if queued.status == "True":
        return None
    return max(started, queued.last_transition_time)


def active_time(seen: Observed) -> timedelta:
    """How long the job was active in all: neither suspended nor queued."""
    since = active_since(seen)
    current = max(seen.now - since, timedelta()) if since is not None else timedelta()
    return timedelta(seconds=seen.attempts.active_seconds) + current


def banked(seen: Observed, *, failed: int = 0) -> Attempts:
    """The attempts after the current one has ended: its time is added up, and `failed` to the failed ones."""
    attempts = seen.attempts
    newest = max(attempts.current, seen.stray.attempt if seen.stray is not None else 0)
    return Attempts(
        current=newest,
        failed=attempts.failed + failed,
        started_at=None,
        active_seconds=int(active_time(seen).total_seconds()),
        futile=attempts.futile,
    )


def after_failure(seen: Observed) -> Attempts:
    """The attempts after the current one has failed, with the moment of the next."""
    attempts = banked(seen, failed=1)
    futile = 1 if _wrote_a_checkpoint(seen) else attempts.futile + 1
    due = seen.now + seen.policy.retry_delay(futile)
    return attempts.model_copy(update={"futile": futile, "next_start_at": due})


def _wrote_a_checkpoint(seen: Observed) -> bool:
    """Whether the current attempt did: then what failed it is not what failed the ones before."""
    checkpoint, started = seen.job.status.checkpoint, seen.attempts.started_at
    return checkpoint is not None and started is not None and checkpoint.time > started


def until_next_attempt(seen: Observed) -> timedelta:
    """How long the next attempt is held back after one that failed."""
    due = seen.attempts.next_start_at
    return max(due - seen.now, timedelta()) if due is not None else timedelta()


def silent_since(seen: Observed) -> datetime | None:
    """When the running trainer of the current attempt last said something, or began to run. None while it does not."""
    running = find_condition(seen.job.status.conditions, ConditionType.RUNNING)
    if seen.run is None or seen.run.phase is not RunPhase.RUNNING or seen.attempts.started_at is None:
        return None
    began = running.last_transition_time if running is not None and running.status == "True" else seen.now
    said = last_report(seen)
    return max(began, said) if said is not None else began


def last_report(seen: Observed) -> datetime | None:
    """When the trainer of the current attempt last reported; None before it did."""
    trainer, progress = seen.job.status.trainer, seen.job.status.progress
    if trainer is None or trainer.attempt != seen.attempts.current or progress is None:
        return None
    return progress.last_update_time


def until_deadline(seen: Observed, spec: FineTuneJobSpec) -> timedelta | None:
    """How long the job may stay active; None for ever, or as long as it waits in a queue."""
    if spec.active_deadline_seconds is None or active_since(seen) is None:
        return None
    return timedelta(seconds=spec.active_deadline_seconds) - active_time(seen)


def until_startup_deadline(seen: Observed, spec: FineTuneJobSpec) -> timedelta | None:
    """How long the current attempt may go on starting; None when it runs, or waits in a queue."""
    since = active_since(seen)
    if since is None or seen.run is None or seen.run.phase not in _STARTING:
        return None
    return since + timedelta(seconds=spec.startup_deadline_seconds) - seen.now


_STARTING = ("Pending", "Starting")
