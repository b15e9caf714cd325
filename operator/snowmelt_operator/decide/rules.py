"""The rules, one small function each: a decision, or None where the rule does not apply. The last tuple is their order.

```
deleted? ── over? ── broken spec? ── succeeded? ── launcher away? ── refused? ── suspended? ── out of time?
   └─ failed by its own word? ── its pods cannot run? ── silent for too long? ── its run ended or vanished?
       └─ nothing launched? ── watch
```
A failed attempt is never followed by a launch at once: it leaves a status in which nothing is launched and the next
attempt has its moment, and the rule "nothing launched?" launches when that has come and what ran before has ended.
```
failed ──> status.attempts.nextStartAt ──(10 s, 20 s, ... 6 min; 10 s again after a new checkpoint)──> launch
```
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.stored import InvalidJob
from snowmelt_operator.api.v1alpha1 import FineTuneJob, FineTuneJobSpec
from snowmelt_operator.decide import clock, troubles
from snowmelt_operator.decide.conditions import Says
from snowmelt_operator.decide.outcomes import (
    accepted,
    attempt_failed,
    checkpoint,
    event,
    fail,
    idle,
    start,
    status,
    stop_all,
)
from snowmelt_operator.decide.state import Decision, DeleteJob, Observed, find_condition, is_finished
from snowmelt_operator.decide.watching import watching
from snowmelt_operator.events import Severity
from snowmelt_trainer.contract.progress import FinalRecord
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.reasons import Reason as TrainerReason

STOP_GRACE = timedelta(seconds=60)
"""How long a trainer that has said its last word may take to end by itself."""
STOP_RECHECK = timedelta(seconds=5)
"""How often an attempt that was asked to stop is looked at."""

Rule = Callable[[Observed], Decision | None]


def deleting(seen: Observed) -> Decision | None:
    if seen.job.metadata.deletion_timestamp is None:
        return None
    return Decision("deleting", actions=stop_all(seen))


def finished(seen: Observed) -> Decision | None:
    """Nothing changes any more; what still runs is stopped, and the FineTuneJob is deleted when its time is over."""
    if not is_finished(seen.job.status):
        return None
    over_for = seen.now - _finished_at(seen.job.status)
    ttl = seen.job.spec.ttl_seconds_after_finished if isinstance(seen.job, FineTuneJob) else None
    if ttl is not None and over_for >= timedelta(seconds=ttl):
        return Decision("finished", actions=(*stop_all(seen), DeleteJob()))
    leftover = stop_all(seen) if over_for >= STOP_GRACE else ()
    waits = [timedelta(seconds=ttl) - over_for] if ttl is not None else []
    if seen.active_runs:
        waits.append(max(STOP_GRACE - over_for, STOP_RECHECK))
    return Decision("finished", actions=leftover, recheck_after=min(waits, default=None))


def _finished_at(before: FineTuneJobStatus) -> datetime:
    ends = [c.last_transition_time for c in before.conditions if c.type in _ENDS and c.status == "True"]
    return before.finished_at or min(ends)


_ENDS = (ConditionType.COMPLETE, ConditionType.FAILED)


def invalid(seen: Observed) -> Decision | None:
    if not isinstance(seen.job, InvalidJob):
        return None
    return fail(seen, Reason.INVALID_SPEC, seen.job.problem, accept=False, rule="invalid")


def _final_record(seen: Observed) -> FinalRecord | None:
    """The trainer's last word on the newest attempt."""
    trainer = seen.job.status.trainer
    return trainer.final if trainer is not None and trainer.attempt >= seen.attempts.current else None


def succeeded(seen: Observed) -> Decision | None:
    """Success is the trainer's word alone: a process can end well untrained, and be called failed though it trained."""
    record = _final_record(seen)
    if record is None or record.outcome is not Outcome.SUCCEEDED:
        return None
    says = [Says(ConditionType.COMPLETE, "True", record.reason, record.message), accepted(), checkpoint(seen)]
    return Decision(
        "succeeded",
        status=status(seen, [*says, *idle(seen, Reason.ENDED)], attempts=clock.banked(seen), over=True),
        events=(event(seen, record.reason, record.message, action="Complete"),),
        recheck_after=STOP_GRACE if seen.active_runs else None,
    )


def obstructed(seen: Observed) -> Decision | None:
    """Nothing can be said about the run now, so nothing is: only that."""
    if seen.obstacle is None:
        return None
    known: Literal["False", "Unknown"] = "False" if seen.attempts.started_at is None else "Unknown"
    before = find_condition(seen.job.status.conditions, ConditionType.CLUSTER_READY)
    news = before is None or before.reason != Reason.LAUNCHER_UNAVAILABLE
    warning = event(seen, Reason.LAUNCHER_UNAVAILABLE, seen.obstacle, action="Launch", severity=Severity.WARNING)
    says = [accepted(), Says(ConditionType.CLUSTER_READY, known, Reason.LAUNCHER_UNAVAILABLE, seen.obstacle)]
    unchanged = status(seen, says, dashboard_url=seen.job.status.dashboard_url)
    return Decision("obstructed", status=unchanged, events=(warning,) if news else ())


def suspended(seen: Observed) -> Decision | None:
    if not _spec(seen).suspend:
        return None
    attempts = clock.banked(seen)
    says = [accepted(), checkpoint(seen)]
    if seen.active_runs:
        says += [*idle(seen, Reason.STOPPING), Says(ConditionType.SUSPENDED, "False", Reason.STOPPING)]
        stopping = status(seen, says, attempts=attempts)
        return Decision("suspended", status=stopping, actions=stop_all(seen), recheck_after=STOP_RECHECK)
    message = "spec.suspend is true; set it to false to go on"
    says += [*idle(seen, Reason.NOT_LAUNCHED), Says(ConditionType.SUSPENDED, "True", Reason.SUSPENDED_BY_USER, message)]
    before = find_condition(seen.job.status.conditions, ConditionType.SUSPENDED)
    news = before is None or before.status != "True"
    told = (event(seen, Reason.SUSPENDED_BY_USER, message, action="Suspend"),) if news else ()
    return Decision("suspended", status=status(seen, says, attempts=attempts), events=told)


def deadline_exceeded(seen: Observed) -> Decision | None:
    spec = _spec(seen)
    left = clock.until_deadline(seen, spec)
    if left is None or left > timedelta():
        return None
    message = (
        f"the job was active for more than spec.activeDeadlineSeconds ({spec.active_deadline_seconds} s): raise it"
    )
    return fail(seen, Reason.DEADLINE_EXCEEDED, message, rule="deadline_exceeded")


def startup_deadline_exceeded(seen: Observed) -> Decision | None:
    spec, run = _spec(seen), seen.run
    left = clock.until_startup_deadline(seen, spec)
    by_launcher = run is not None and run.phase is RunPhase.FAILED and run.reason == Reason.STARTUP_DEADLINE_EXCEEDED
    if seen.attempts.started_at is None or (not by_launcher and (left is None or left > timedelta())):
        return None
    trouble = troubles.lasting(seen)
    words = f"{trouble.reason}: {trouble.message}" if trouble is not None else run.message if run is not None else ""
    waiting_for = f"; it says: {words}" if words else ""
    limit = f"spec.startupDeadlineSeconds ({spec.startup_deadline_seconds} s)"
    message = f"attempt {seen.attempts.current} did not start within {limit}: look at its pods and at what they ask for"
    return fail(
        seen, Reason.STARTUP_DEADLINE_EXCEEDED, message + waiting_for, failed=1, rule="startup_deadline_exceeded"
    )


def trainer_failed(seen: Observed) -> Decision | None:
    record = _final_record(seen)
    if record is None or seen.attempts.started_at is None:
        return None
    if not record.reason.retryable:
        return fail(seen, record.reason, record.message, failed=1, rule="trainer_failed")
    if seen.run is not None and seen.run.is_active:
        return _waiting_for_the_end(seen)
    befell = troubles.cause(seen) if record.reason is TrainerReason.WORKER_LOST else None
    if befell is not None:  # the trainer saw a worker die, and the pod's status knows of what
        return attempt_failed(
            seen, _job(seen), befell.reason, f"{befell.message}; {record.message}", rule="trainer_failed"
        )
    return attempt_failed(seen, _job(seen), record.reason, record.message, rule="trainer_failed")


def _waiting_for_the_end(seen: Observed) -> Decision:
    """Two attempts never run at once: the next one waits until the trainer that said its last word has ended."""
    progress = seen.job.status.progress
    said_at = (progress and progress.last_update_time) or seen.attempts.started_at or seen.now
    overdue = seen.now - said_at >= STOP_GRACE
    return Decision("trainer_failed", actions=stop_all(seen) if overdue else (), recheck_after=STOP_RECHECK)


def refused(seen: Observed) -> Decision | None:
    if seen.refusal is None:
        return None
    return fail(seen, Reason.SUBMISSION_FAILED, seen.refusal, rule="refused")


def pods_cannot_run(seen: Observed) -> Decision | None:
    """What somebody must change fails the job; what another attempt may cure fails the attempt. Each has its grace."""
    trouble = troubles.unbearable(seen)
    if seen.attempts.started_at is None or trouble is None:
        return None
    if trouble.is_permanent:
        message = troubles.verdict(trouble, seen.policy)
        return fail(seen, trouble.reason, message, failed=1, rule="pods_cannot_run")
    return attempt_failed(seen, _job(seen), trouble.reason, trouble.message, rule="pods_cannot_run")


def stalled(seen: Observed) -> Decision | None:
    """A trainer that says nothing for long is given up: something hangs, which a new attempt may not."""
    since = clock.silent_since(seen)
    if since is None or seen.now - since < seen.policy.stall + seen.policy.stall_grace:
        return None
    message = (
        f"the trainer has reported nothing since {since:%Y-%m-%dT%H:%M:%SZ}: see whether its storage or a worker "
        "hangs, and whether it reaches the operator's progress endpoint"
    )
    return attempt_failed(seen, _job(seen), Reason.STALLED, message, rule="stalled")


def run_ended(seen: Observed) -> Decision | None:
    """A run that ended without the trainer's record failed, whatever its process or its launcher says."""
    run = seen.run
    if seen.attempts.started_at is None or (run is not None and run.is_active):
        return None
    if run is None:
        message = f"attempt {seen.attempts.current} ({seen.job.status.ray_job_name}) is not there any more"
        return attempt_failed(seen, _job(seen), Reason.RUN_VANISHED, message, rule="run_ended")
    if run.reason == Reason.SUBMISSION_FAILED:
        return fail(seen, Reason.SUBMISSION_FAILED, run.message, failed=1, rule="run_ended")
    message = ": ".join(part for part in (run.reason, run.message) if part)
    befell = troubles.cause(seen) if run.phase is RunPhase.FAILED else None
    if befell is not None:
        words = "; ".join(part for part in (befell.message, message) if part)
        return attempt_failed(seen, _job(seen), befell.reason, words, rule="run_ended")
    reason = _RUN_REASONS[run.phase]
    return attempt_failed(seen, _job(seen), reason, message, rule="run_ended")


_RUN_REASONS = {
    RunPhase.SUCCEEDED: Reason.NO_FINAL_RECORD,
    RunPhase.FAILED: Reason.RUN_FAILED,
    RunPhase.STOPPED: Reason.RUN_STOPPED,
}


def launch(seen: Observed) -> Decision | None:
    if seen.attempts.started_at is not None:
        return None
    if seen.run is not None and seen.run.is_active:  # what was suspended or given up has not ended yet
        return Decision("launch", actions=() if seen.run.stopping else stop_all(seen), recheck_after=STOP_RECHECK)
    held_back = clock.until_next_attempt(seen)
    if held_back > timedelta():
        return Decision("launch", recheck_after=held_back)
    was = find_condition(seen.job.status.conditions, ConditionType.SUSPENDED)
    attempt = seen.attempts.current + 1
    if was is None or was.reason == Reason.RESUMED or not seen.attempts.current:
        return start(seen, rule="launch")
    note = f"spec.suspend is false: attempt {attempt} was started"
    return start(seen, why=event(seen, Reason.RESUMED, note, action="Launch", attempt=attempt), rule="launch")


def _job(seen: Observed) -> FineTuneJob:
    assert isinstance(seen.job, FineTuneJob)  # `invalid` comes before
    return seen.job


def _spec(seen: Observed) -> FineTuneJobSpec:
    return _job(seen).spec


RULES: tuple[Rule, ...] = (
    deleting,
    finished,
    invalid,
    succeeded,
    obstructed,
    refused,
    suspended,
    deadline_exceeded,
    startup_deadline_exceeded,
    trainer_failed,
    pods_cannot_run,
    stalled,
    run_ended,
    launch,
    watching,
)
"""First hit wins."""
