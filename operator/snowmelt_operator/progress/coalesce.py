"""What to write of one job's progress, and when. Pure: the clock's value (seconds, monotonic) is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.status import TrainerStatus
from snowmelt_operator.api.stored import StoredJob
from snowmelt_trainer.contract.progress import Progress

PACE = 5.0
"""Seconds between two writes of one job's progress within a stage."""


@dataclass(frozen=True)
class Lane:
    """One job's progress: what was written last and what waits."""

    written: Progress | None = None
    written_at: float = -math.inf
    pending: Progress | None = None


def rank(progress: Progress | TrainerStatus) -> tuple[int, int]:
    """Snapshots in the order in which they were taken."""
    return progress.attempt, progress.sequence


def offer(lane: Lane, progress: Progress) -> Lane:
    """The lane with a new snapshot in it; one that is not newer than what the lane has seen changes nothing."""
    seen = [rank(snapshot) for snapshot in (lane.written, lane.pending) if snapshot is not None]
    if seen and rank(progress) <= max(seen):
        return lane
    return replace(lane, pending=progress)


def due_at(lane: Lane, pace: float = PACE) -> float | None:
    """When to write what waits: -inf (at once) for a new stage, attempt or final record; None when nothing waits."""
    if lane.pending is None:
        return None
    return -math.inf if _urgent(lane.pending, lane.written) else lane.written_at + pace


def wrote(lane: Lane, progress: Progress, now: float) -> Lane:
    """The lane after `progress` was written; a newer snapshot that came meanwhile still waits."""
    waits = lane.pending is not None and rank(lane.pending) > rank(progress)
    return Lane(written=progress, written_at=now, pending=lane.pending if waits else None)


def _urgent(progress: Progress, written: Progress | None) -> bool:
    return (
        progress.final is not None
        or written is None
        or progress.attempt != written.attempt
        or (progress.stage and progress.stage.index) != (written.stage and written.stage.index)
    )


def already_recorded(job: StoredJob, progress: Progress) -> bool:
    """Whether status holds this snapshot, or a later one of the attempt: for instance an acknowledgement was lost."""
    trainer = job.status.trainer
    if trainer is None or trainer.attempt != progress.attempt:
        return False
    return rank(progress) <= rank(trainer) or (trainer.final is not None and progress.final is not None)


def why_over(job: StoredJob, progress: Progress) -> str | None:
    """Why nothing of this attempt is taken any more, for people; None while it may report."""
    attempt, current, trainer = progress.attempt, job.status.attempts.current, job.status.trainer
    if attempt < current or (trainer is not None and attempt < trainer.attempt):
        return f"attempt {attempt} was superseded by attempt {max(current, trainer.attempt if trainer else 0)}"
    for condition in job.status.conditions:
        if condition.status == "True" and condition.type in _ENDS:
            return f"attempt {attempt} has ended: the job is {condition.type} ({condition.reason})"
    if trainer is not None and trainer.attempt == attempt and trainer.final is not None:
        return f"attempt {attempt} has ended: its final record ({trainer.final.reason}) was already received"
    return None


_ENDS = (ConditionType.COMPLETE, ConditionType.FAILED, ConditionType.SUSPENDED)
