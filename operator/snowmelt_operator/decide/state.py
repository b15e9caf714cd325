"""What `decide` sees, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from snowmelt_operator.api.conditions import Condition, ConditionType, Phase
from snowmelt_operator.api.policy import DEFAULT_POLICY, Policy
from snowmelt_operator.api.run import Run
from snowmelt_operator.api.status import Attempts, FineTuneJobStatus, Incident
from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.events import Event
from snowmelt_operator.render.names import rayjob_name


@dataclass(frozen=True)
class Observed:
    """A job and what runs for it, at one moment."""

    job: StoredJob
    now: datetime
    run: Run | None = None
    """The attempt that the status speaks of."""
    stray: Run | None = None
    """A newer attempt that was launched, and never recorded because the operator died in between."""
    obstacle: str | None = None
    """Why the launcher cannot be asked, or did not launch, at this moment."""
    refusal: str | None = None
    """Why the launcher will never take the next attempt."""
    troubles: tuple[Trouble, ...] = ()
    """What is wrong with the pods of the attempt, and what happened to them."""
    last_words: LastWords | None = None
    """The end of the log of the container that ended last; only looked for when something went wrong."""
    policy: Policy = DEFAULT_POLICY
    """How patient the operator is."""
    name_attempt: Callable[[ObjectMeta, int], str] = field(default=lambda job, attempt: rayjob_name(job.name, attempt))
    """What the launcher calls an attempt."""

    @property
    def attempts(self) -> Attempts:
        return self.job.status.attempts

    @property
    def active_runs(self) -> tuple[Run, ...]:
        """Everything that runs for the job, or may start to."""
        return tuple(run for run in (self.run, self.stray) if run is not None and run.is_active)


@dataclass(frozen=True)
class LaunchAttempt:
    """Start this attempt."""

    attempt: int


@dataclass(frozen=True)
class StopAttempt:
    """Stop this attempt."""

    attempt: int


@dataclass(frozen=True)
class AskForWorkers:
    """Ask for room for so many workers of this attempt; asked for again, it changes nothing."""

    attempt: int
    count: int


@dataclass(frozen=True)
class DeleteJob:
    """Delete the FineTuneJob: its time after the end is over."""


Action = LaunchAttempt | StopAttempt | AskForWorkers | DeleteJob


@dataclass(frozen=True)
class ReconcilerStatus:
    """The part of the status that belongs to the field manager `snowmelt`."""

    observed_generation: int
    phase: Phase
    conditions: tuple[Condition, ...]
    attempts: Attempts
    ray_job_name: str | None
    dashboard_url: str | None
    incidents: tuple[Incident, ...]
    finished_at: datetime | None

    @classmethod
    def of(cls, status: FineTuneJobStatus) -> ReconcilerStatus:
        """What the status says now."""
        return cls(
            observed_generation=status.observed_generation or 0,
            phase=status.phase or Phase.PENDING,
            conditions=status.conditions,
            attempts=status.attempts,
            ray_job_name=status.ray_job_name,
            dashboard_url=status.dashboard_url,
            incidents=status.incidents,
            finished_at=status.finished_at,
        )

    def onto(self, status: FineTuneJobStatus) -> FineTuneJobStatus:
        """The whole status after this part was written."""
        return status.model_copy(update={name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Decision:
    """What to do, what to say, and when to look again at the latest."""

    rule: str
    status: ReconcilerStatus | None = None
    """None: it stays as it is."""
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    recheck_after: timedelta | None = None
    failed_attempt: str | None = None
    """The reason, when this counts an attempt as failed."""

    @property
    def launches(self) -> bool:
        return any(isinstance(action, LaunchAttempt) for action in self.actions)

    def has_news(self, seen: Observed) -> bool:
        """Whether it records something that went wrong, about which a log may tell more."""
        return self.status is not None and self.status.incidents != seen.job.status.incidents

    def finishes(self, seen: Observed) -> bool:
        """Whether the job is over by this decision, and was not before."""
        return self.status is not None and self.status.finished_at is not None and not is_finished(seen.job.status)


def find_condition(conditions: tuple[Condition, ...], type_: ConditionType) -> Condition | None:
    return next((condition for condition in conditions if condition.type == type_), None)


def is_finished(status: FineTuneJobStatus) -> bool:
    """Whether the job is over for good."""
    return any(
        condition.status == "True" and condition.type in (ConditionType.COMPLETE, ConditionType.FAILED)
        for condition in status.conditions
    )
