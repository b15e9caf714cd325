"""One attempt at a job, as whoever runs it sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunPhase(StrEnum):
    PENDING = "Pending"
    """Accepted, and not looked at yet."""
    QUEUED = "Queued"
    """A queue holds it back."""
    STARTING = "Starting"
    """The Ray cluster, or the trainer, is starting."""
    RUNNING = "Running"
    """The trainer runs."""
    SUCCEEDED = "Succeeded"
    """The trainer's process ended well; whether the training did is the trainer's final record to say."""
    FAILED = "Failed"
    """It ended badly."""
    STOPPED = "Stopped"
    """It was stopped."""
    SUSPENDED = "Suspended"
    """Somebody holds it back by hand."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing runs, and nothing will."""
        return self in (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.STOPPED)

    @property
    def is_held_back(self) -> bool:
        """Whether it waits for somebody's permission to start."""
        return self in (RunPhase.QUEUED, RunPhase.SUSPENDED)


HANDED_OVER = "the attempt was handed over and has not been taken up yet"
"""Message of a run that is pending; `decide` says the same when it launches, so that the first look is no news."""


@dataclass(frozen=True)
class Run:
    """One attempt."""

    name: str
    attempt: int
    phase: RunPhase
    reason: str = ""
    """Why, in one word; a reason of api/reasons.py where the launcher knows one."""
    message: str = ""
    cluster_ready: bool = False
    started_at: datetime | None = None
    dashboard_url: str | None = None
    ray_cluster: str = ""
    """The RayCluster that runs it, where there is one."""
    awaits_submission: bool = False
    """The Ray cluster takes its job, and nobody has brought it yet."""
    stopping: bool = False
    """Its end was asked for, and is not reached."""

    @property
    def is_active(self) -> bool:
        """Whether something runs or may start to."""
        return not self.phase.is_terminal
