"""How long a job has been active, and how long until something is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from snowmelt_operator.api.conditions import ConditionType
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
    )


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
