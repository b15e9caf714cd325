"""What holds for every job, whatever its state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt_operator.api.conditions import Condition, ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import HANDED_OVER, Run, RunPhase
from snowmelt_operator.api.status import MAX_INCIDENTS
from snowmelt_operator.api.stored import InvalidJob, StoredJob
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.decide import Observed, decide
from snowmelt_operator.decide.state import LaunchAttempt, ReconcilerStatus, is_finished
from snowmelt_operator.decide.troubles import GRAVITY
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.reasons import Reason as TrainerReason
from tests.unit.operator_core.building import NOW, after, attempts, final, job

MANY = settings(max_examples=150, deadline=None)


POD_REASONS = [reason for reason in Reason if reason in GRAVITY]


@st.composite
def incidents(draw: st.DrawFn, current: int) -> dict[str, Any]:
    reason, attempt = draw(st.sampled_from(POD_REASONS)), draw(st.integers(1, current))
    time = (NOW - timedelta(seconds=draw(st.integers(0, 1000)))).isoformat()
    return {"attempt": attempt, "reason": reason.value, "message": "was", "time": time}


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Condition, ...]:
    types = draw(st.sets(st.sampled_from(ConditionType)))
    return tuple(
        Condition(
            type=type_,
            status=draw(st.sampled_from(("True", "False", "Unknown"))),
            reason=draw(st.sampled_from(("Starting", "Stopping", "Resumed", "Whatever"))),
            last_transition_time=NOW - timedelta(seconds=draw(st.integers(0, 1000))),
        )
        for type_ in ConditionType
        if type_ in types
    )


@st.composite
def runs(draw: st.DrawFn, attempt: int) -> Run:
    phase = draw(st.sampled_from(RunPhase))
    stopping = draw(st.booleans()) and not phase.is_terminal
    return Run(
        name=f"shoes-a{attempt}", attempt=attempt, phase=phase, stopping=stopping, message=draw(st.text(max_size=5))
    )


@st.composite
def troubles(draw: st.DrawFn) -> Trouble:
    return Trouble(
        reason=draw(st.sampled_from(POD_REASONS)),
        message=draw(st.text(max_size=5)),
        pod=draw(st.none() | st.just("shoes-a1-head")),
        since=NOW - timedelta(seconds=draw(st.integers(0, 1000))),
        is_over=draw(st.booleans()),
        is_permanent=draw(st.booleans()),
    )


@st.composite
def jobs(draw: st.DrawFn, current: int) -> StoredJob:
    active_for = draw(st.none() | st.integers(0, 1000)) if current else None
    status = {"attempts": attempts(current, failed=draw(st.integers(0, 4)), active_for=active_for)}
    if draw(st.booleans()):
        status["attempts"] |= {"futile": draw(st.integers(0, 20))}
        status["attempts"] |= {"nextStartAt": (NOW + timedelta(seconds=draw(st.integers(-9, 9)))).isoformat()}
    if current:
        status["incidents"] = draw(st.lists(incidents(current), max_size=MAX_INCIDENTS))
    if current and draw(st.booleans()):
        reason = draw(st.sampled_from(TrainerReason))
        outcome = draw(st.sampled_from(Outcome))
        status |= final(outcome, reason, attempt=draw(st.integers(max(1, current - 1), current)))
    metadata = {"deletionTimestamp": NOW.isoformat()} if draw(st.booleans()) and draw(st.booleans()) else {}
    spec = {
        "suspend": draw(st.booleans()),
        "backoffLimit": draw(st.integers(0, 4)),
        "startupDeadlineSeconds": draw(st.integers(1, 1500)),
        "activeDeadlineSeconds": draw(st.integers(1, 1500)),
    }
    if draw(st.booleans()):
        spec["ttlSecondsAfterFinished"] = draw(st.integers(0, 1500))
    made = job(status=status, metadata=metadata, **spec)
    stored = made.model_copy(update={"status": made.status.model_copy(update={"conditions": draw(conditions())})})
    if draw(st.integers(0, 9)) == 0:
        return InvalidJob(metadata=stored.metadata, status=stored.status, problem="spec.x: wrong")
    return stored


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    current = draw(st.integers(0, 3))
    return Observed(
        job=draw(jobs(current)),
        now=NOW,
        run=draw(st.none() | runs(current)) if current else None,
        stray=draw(st.none() | runs(current + 1)),
        obstacle=draw(st.sampled_from((None, None, None, "away"))),
        refusal=draw(st.sampled_from((None, None, None, "refused"))),
        troubles=draw(st.lists(troubles(), max_size=6).map(tuple)),
        last_words=draw(st.sampled_from((None, LastWords("shoes-a1-head", "so it ended")))),
    )


@MANY
@given(observations())
def test_nothing_is_launched_while_suspended_finished_deleted_invalid_or_unreachable(seen: Observed) -> None:
    if isinstance(seen.job, InvalidJob):
        forbidden = True
    else:
        forbidden = seen.job.spec.suspend or seen.job.metadata.deletion_timestamp is not None
    if forbidden or is_finished(seen.job.status) or seen.obstacle is not None:
        assert not decide(seen).launches


@MANY
@given(observations())
def test_two_attempts_never_run_at_once(seen: Observed) -> None:
    decision = decide(seen)
    launched = [action.attempt for action in decision.actions if isinstance(action, LaunchAttempt)]
    if seen.run is not None and seen.run.is_active:
        assert launched == []
    assert launched in ([], [seen.job.status.attempts.current + 1])


@MANY
@given(observations())
def test_the_status_of_a_finished_job_never_changes(seen: Observed) -> None:
    if is_finished(seen.job.status):
        assert decide(seen).status is None
        assert decide(seen).events == ()


@MANY
@given(observations())
def test_a_decision_once_written_is_not_made_again(seen: Observed) -> None:
    """Once the status is written and the actions are taken, looking again neither launches, writes nor tells."""
    decision = decide(seen)
    launched = [action.attempt for action in decision.actions if isinstance(action, LaunchAttempt)]
    later = after(seen, decision)
    if launched:
        pending = Run(name=f"shoes-a{launched[0]}", attempt=launched[0], phase=RunPhase.PENDING, message=HANDED_OVER)
        later = replace(later, run=pending, stray=None, refusal=None, troubles=())
    again = decide(later)
    assert not again.launches
    assert again.events == ()
    assert again.status in (None, ReconcilerStatus.of(later.job.status))


@MANY
@given(observations())
def test_attempts_and_their_failures_only_grow(seen: Observed) -> None:
    status = decide(seen).status
    if status is not None:
        before = seen.job.status.attempts
        assert status.attempts.current >= before.current
        assert 0 <= status.attempts.failed - before.failed <= 1
        assert status.attempts.active_seconds >= before.active_seconds


@MANY
@given(observations())
def test_incidents_are_few_and_of_one_reason_and_attempt_there_is_one_more_at_most(seen: Observed) -> None:
    status = decide(seen).status
    if status is not None:
        assert len(status.incidents) <= MAX_INCIDENTS
        before = [(each.attempt, each.reason) for each in seen.job.status.incidents]
        added = [each for each in status.incidents if (each.attempt, each.reason) not in before]
        assert len({(each.attempt, each.reason) for each in added}) == len(added)


@MANY
@given(observations())
def test_no_attempt_is_launched_before_its_moment(seen: Observed) -> None:
    due = seen.attempts.next_start_at
    if due is not None and due > seen.now:
        assert not decide(seen).launches


@MANY
@given(observations())
def test_each_condition_is_there_once_and_in_a_fixed_order(seen: Observed) -> None:
    status = decide(seen).status
    if status is not None:
        types = [condition.type for condition in status.conditions]
        assert types == [type_ for type_ in ConditionType if type_ in types]
