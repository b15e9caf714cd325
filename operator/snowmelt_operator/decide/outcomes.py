"""The decisions that several rules share: a new attempt, a failed attempt, the end of the job."""

from __future__ import annotations

from enum import StrEnum

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import HANDED_OVER
from snowmelt_operator.api.status import Attempts, Incident
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.decide import troubles
from snowmelt_operator.decide.clock import after_failure, banked
from snowmelt_operator.decide.conditions import MAX_MESSAGE, Says, merge, phase_of
from snowmelt_operator.decide.state import (
    Action,
    Decision,
    LaunchAttempt,
    Observed,
    ReconcilerStatus,
    StopAttempt,
    find_condition,
)
from snowmelt_operator.events import Event, Severity


def status(
    seen: Observed,
    says: list[Says],
    *,
    attempts: Attempts | None = None,
    run_name: str | None = None,
    dashboard_url: str | None = None,
    failure: Incident | None = None,
    over: bool = False,
) -> ReconcilerStatus:
    """The status with these conditions and what went wrong; `over` sets finishedAt."""
    metadata, before = seen.job.metadata, seen.job.status
    conditions = merge(before.conditions, [*says, *degraded(seen)], generation=metadata.generation, now=seen.now)
    return ReconcilerStatus(
        observed_generation=metadata.generation,
        phase=phase_of(conditions),
        conditions=conditions,
        attempts=attempts or before.attempts,
        ray_job_name=run_name or before.ray_job_name,
        dashboard_url=dashboard_url,
        incidents=troubles.recorded(seen, failure),
        finished_at=seen.now if over else before.finished_at,
    )


def stop_all(seen: Observed) -> tuple[Action, ...]:
    """Stop what runs, unless it was asked to already."""
    return tuple(StopAttempt(run.attempt) for run in seen.active_runs if not run.stopping)


def accepted() -> Says:
    return Says(ConditionType.ACCEPTED, "True", Reason.SPEC_VALID)


def checkpoint(seen: Observed) -> Says:
    """Whether a new attempt would resume."""
    if seen.job.status.checkpoint is None:
        return Says(ConditionType.CHECKPOINT_AVAILABLE, "False", Reason.NO_CHECKPOINT_YET)
    return Says(ConditionType.CHECKPOINT_AVAILABLE, "True", Reason.CHECKPOINT_WRITTEN)


def degraded(seen: Observed) -> list[Says]:
    """What the job does without, as the trainer tells it; nothing where it has all that it was to have."""
    status = seen.job.status
    caches = [(row.index, row.name, row.cache) for row in status.stages]
    if status.stage is not None:
        caches.append((status.stage.index, status.stage.name, status.stage.cache))
    lost = [(index, name, cache) for index, name, cache in caches if cache is not None and cache.failed]
    if not lost:
        return []
    index, name, cache = lost[-1]
    message = f"stage {index} ({name}) goes on without its cache of activations: {cache.reason}"
    return [Says(ConditionType.DEGRADED, "True", Reason.CACHE_GIVEN_UP, message)]


def idle(seen: Observed, reason: Reason) -> list[Says]:
    """Nothing is up; `reason` says why. A queue is only spoken of where one was."""
    says = [Says(type_, "False", reason) for type_ in _UNDER_WAY]
    if find_condition(seen.job.status.conditions, ConditionType.QUEUED) is not None:
        says.append(Says(ConditionType.QUEUED, "False", reason))
    return says


_TO_START = (ConditionType.CLUSTER_READY, ConditionType.RUNNING)
_UNDER_WAY = (ConditionType.CLUSTER_READY, ConditionType.RUNNING, ConditionType.PROGRESSING)


def fail(seen: Observed, reason: StrEnum, message: str, *, failed: int = 0, accept: bool = True, rule: str) -> Decision:
    """The job is over, and failed; what runs is stopped."""
    says = [Says(ConditionType.FAILED, "True", reason, message), checkpoint(seen), *idle(seen, Reason.ENDED)]
    says.append(accepted() if accept else Says(ConditionType.ACCEPTED, "False", reason, message))
    failure = troubles.failure(seen, reason, message) if failed else None
    told = event(seen, reason, message, action="Fail", severity=Severity.WARNING)
    return Decision(
        rule=rule,
        status=status(seen, says, attempts=banked(seen, failed=failed), failure=failure, over=True),
        actions=stop_all(seen),
        events=(*(each for each in incident_events(seen) if each.reason != reason), told),
        failed_attempt=reason if failed else None,
    )


def start(seen: Observed, *, why: Event | None = None, rule: str) -> Decision:
    """The next attempt. One that was launched and never recorded is found again, since its name is the same."""
    attempt = seen.attempts.current + 1
    name = seen.name_attempt(seen.job.metadata, attempt)
    says = [accepted(), *idle(seen, Reason.STARTING), checkpoint(seen)]
    says += [Says(type_, "False", Reason.STARTING, HANDED_OVER) for type_ in _TO_START]
    says.append(Says(ConditionType.PROGRESSING, "False", Reason.NO_REPORT_YET))
    if find_condition(seen.job.status.conditions, ConditionType.SUSPENDED) is not None:
        says.append(Says(ConditionType.SUSPENDED, "False", Reason.RESUMED))
    attempts = banked(seen).model_copy(update={"current": attempt, "started_at": seen.now})
    launched = event(
        seen, Reason.LAUNCHED, f"attempt {attempt} was started as {name}", action="Launch", attempt=attempt
    )
    return Decision(
        rule=rule,
        status=status(seen, says, attempts=attempts, run_name=name),
        actions=(LaunchAttempt(attempt),),
        events=(why or launched,),
    )


def attempt_failed(seen: Observed, job: FineTuneJob, reason: StrEnum, message: str, *, rule: str) -> Decision:
    """Another attempt after a while, as long as spec.backoffLimit allows one; the end of the job when it does not. What
    still runs is stopped, and the next attempt waits for its end."""
    failed, limit = seen.attempts.failed + 1, job.spec.backoff_limit
    cause = f"{reason}: {message}" if message else str(reason)
    if failed > limit:
        total = f"{failed} attempt{'s' if failed > 1 else ''} failed, and spec.backoffLimit is {limit}"
        return fail(seen, Reason.BACKOFF_LIMIT_EXCEEDED, f"{total}; the last one: {cause}", failed=1, rule=rule)
    current, attempts = seen.attempts.current, after_failure(seen)
    due = attempts.next_start_at
    assert due is not None  # after_failure sets it
    note = (
        f"attempt {current} failed, and attempt {current + 1} starts at {due:%Y-%m-%dT%H:%M:%SZ} "
        f"({failed} of {limit} retries); {cause}"
    )
    says = [accepted(), checkpoint(seen), *idle(seen, Reason.BACK_OFF)]
    says.append(Says(ConditionType.CLUSTER_READY, "False", reason, message))
    says.append(Says(ConditionType.RUNNING, "False", Reason.BACK_OFF, note))
    retrying = event(seen, Reason.RETRYING, note, action="Launch", severity=Severity.WARNING, attempt=current + 1)
    return Decision(
        rule=rule,
        status=status(seen, says, attempts=attempts, failure=troubles.failure(seen, reason, message)),
        actions=stop_all(seen),
        events=(*incident_events(seen), retrying),
        recheck_after=due - seen.now,
        failed_attempt=reason,
    )


def incident_events(seen: Observed) -> tuple[Event, ...]:
    """An Event for everything that went wrong, or that the job goes on without, and was not told yet."""
    before = find_condition(seen.job.status.conditions, ConditionType.DEGRADED)
    told = before.message if before is not None else ""
    news = [(incident.reason, incident.message) for incident in troubles.fresh_incidents(seen)]
    news += [(str(one.reason), one.message) for one in degraded(seen) if one.message[:MAX_MESSAGE] != told]
    return tuple(event(seen, reason, message, action="Run", severity=Severity.WARNING) for reason, message in news)


def event(
    seen: Observed,
    reason: str,
    note: str,
    *,
    action: str,
    severity: Severity = Severity.NORMAL,
    attempt: int | None = None,
) -> Event:
    """An Event of this job; the same reason is another occasion in another attempt, or after a change of the spec."""
    metadata = seen.job.metadata
    occasion = f"{metadata.generation}.{seen.attempts.current if attempt is None else attempt}"
    return Event(regarding=metadata, reason=reason, note=note, action=action, severity=severity, occasion=occasion)
