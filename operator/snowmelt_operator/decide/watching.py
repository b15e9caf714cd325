"""The last rule: an attempt is under way, and the status says how it is."""

from __future__ import annotations

from datetime import timedelta

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import Run, RunPhase
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.decide import clock, troubles
from snowmelt_operator.decide.conditions import Says
from snowmelt_operator.decide.outcomes import accepted, checkpoint, incident_events, status
from snowmelt_operator.decide.state import Action, AskForWorkers, Decision, Observed, find_condition

PEEK = (timedelta(seconds=15), timedelta(seconds=60))
"""How often a starting attempt is looked at though nobody says anything: at first, and after a while."""


def watching(seen: Observed) -> Decision:
    job, run = seen.job, seen.run
    assert isinstance(job, FineTuneJob)
    assert run is not None  # `run_ended` and `launch` come before
    says = [accepted(), checkpoint(seen), _cluster_ready(seen, run), _running(run), _progressing(seen, run)]
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
        troubles.until_next(seen),
        _until_peek(seen, run),
        _until_stall(seen),
    ]
    return Decision(
        "watching",
        status=status(seen, says, attempts=attempts, run_name=run.name, dashboard_url=run.dashboard_url),
        events=incident_events(seen),
        actions=_room_to_grow(job, run),
        recheck_after=min((wait for wait in waits if wait is not None), default=None),
    )


def _room_to_grow(job: FineTuneJob, run: Run) -> tuple[Action, ...]:
    """An attempt starts with the fewest workers; it takes in the others as they come."""
    elastic = job.spec.workers.elastic
    if elastic is None or run.stopping or run.phase is not RunPhase.RUNNING:
        return ()
    return (AskForWorkers(run.attempt, elastic.max),)


def _cluster_ready(seen: Observed, run: Run) -> Says:
    trouble = troubles.lasting(seen)
    if trouble is not None:
        return Says(ConditionType.CLUSTER_READY, "False", trouble.reason, trouble.message)
    if run.cluster_ready:
        return Says(ConditionType.CLUSTER_READY, "True", Reason.CLUSTER_UP)
    return Says(ConditionType.CLUSTER_READY, "False", Reason.STARTING, run.message)


def _running(run: Run) -> Says:
    if run.stopping:
        return Says(ConditionType.RUNNING, "False", Reason.STOPPING)
    if run.phase is RunPhase.RUNNING:
        return Says(ConditionType.RUNNING, "True", Reason.TRAINER_RUNNING)
    return Says(ConditionType.RUNNING, "False", Reason.STARTING, run.message)


def _progressing(seen: Observed, run: Run) -> Says:
    since, policy = clock.silent_since(seen), seen.policy
    if since is not None and seen.now - since >= policy.stall and not run.stopping:
        limit = (policy.stall + policy.stall_grace).total_seconds()
        message = (
            f"the trainer has reported nothing since {since:%Y-%m-%dT%H:%M:%SZ}: look at its log; after {limit:.0f} s "
            "of silence the attempt is given up"
        )
        return Says(ConditionType.PROGRESSING, "False", Reason.STALLED, message)
    if clock.last_report(seen) is None:
        return Says(ConditionType.PROGRESSING, "False", Reason.NO_REPORT_YET)
    return Says(ConditionType.PROGRESSING, "True", Reason.REPORTING)


def _until_stall(seen: Observed) -> timedelta | None:
    since, policy = clock.silent_since(seen), seen.policy
    if since is None:
        return None
    silent = seen.now - since
    return policy.stall - silent if silent < policy.stall else policy.stall + policy.stall_grace - silent


def _until_peek(seen: Observed, run: Run) -> timedelta | None:
    """Pods that wait for a volume say so in Events, which nobody brings; so does a Job whose pod is refused."""
    since = clock.active_since(seen)
    if since is None or run.phase is not RunPhase.STARTING:
        return None
    often, seldom = PEEK
    if run.awaits_submission:
        return often
    return min(max(often, (seen.now - since) / 4), seldom)
