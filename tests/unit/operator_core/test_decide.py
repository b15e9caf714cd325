"""What the operator does about a job, as facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from snowmelt_operator.api.conditions import ConditionType, Phase
from snowmelt_operator.api.policy import DEFAULT_POLICY
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import HANDED_OVER, RunPhase
from snowmelt_operator.api.stored import InvalidJob, read_job
from snowmelt_operator.decide import decide
from snowmelt_operator.decide.rules import STOP_GRACE
from snowmelt_operator.decide.state import AskForWorkers, DeleteJob, LaunchAttempt, Observed, StopAttempt
from snowmelt_operator.events import Severity
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.reasons import Reason as TrainerReason
from tests.unit.operator_core.building import (
    NOW,
    after,
    attempts,
    condition,
    document,
    final,
    job,
    run,
    seen,
    under_way,
)


def test_a_new_job_is_launched_with_one_status_and_one_event() -> None:
    decision = decide(seen(job()))
    assert decision.actions == (LaunchAttempt(1),)
    assert decision.status is not None
    assert decision.status.phase is Phase.STARTING
    assert decision.status.ray_job_name == "shoes-a1"
    assert decision.status.attempts.started_at == NOW
    assert condition(decision, ConditionType.ACCEPTED).status == "True"
    assert [event.reason for event in decision.events] == [Reason.LAUNCHED]


def test_looking_again_at_what_was_launched_changes_nothing() -> None:
    launched = after(seen(job()), decide(seen(job())))
    again = replace(launched, run=run(RunPhase.PENDING, message=HANDED_OVER))
    decision = decide(again)
    assert decision.actions == ()
    assert decision.events == ()
    assert decision.status == decide(seen(job())).status


def test_an_attempt_that_was_launched_but_not_recorded_is_taken_over() -> None:
    decision = decide(seen(job(), stray=run(attempt=1)))
    assert decision.actions == (LaunchAttempt(1),)  # idempotent: it exists already
    assert decision.status is not None
    assert decision.status.attempts.current == 1


def test_an_unrecorded_attempt_of_a_suspended_job_is_stopped_and_its_name_not_used_again() -> None:
    decision = decide(seen(job(suspend=True), stray=run(attempt=1)))
    assert decision.actions == (StopAttempt(1),)
    assert decision.status is not None
    assert decision.status.attempts.current == 1


def test_suspending_stops_the_run_and_is_true_only_when_nothing_runs() -> None:
    asked = decide(seen(under_way(suspend=True, active_for=100), run()))
    assert asked.actions == (StopAttempt(1),)
    assert condition(asked, ConditionType.SUSPENDED).reason == Reason.STOPPING
    stopping = after(seen(under_way(suspend=True, active_for=100), run(stopping=True)), asked)
    assert decide(stopping).actions == ()
    ended = decide(replace(stopping, run=None))
    assert condition(ended, ConditionType.SUSPENDED).status == "True"
    assert ended.status is not None
    assert ended.status.phase is Phase.SUSPENDED
    assert ended.status.attempts == stopping.job.status.attempts
    assert ended.status.attempts.active_seconds == 100


def test_a_resumed_job_starts_another_attempt_that_does_not_count_as_failed() -> None:
    asked = after(seen(under_way(suspend=True), run()), decide(seen(under_way(suspend=True), run())))
    suspended = after(replace(asked, run=None), decide(replace(asked, run=None)))
    resumed = replace(suspended, job=suspended.job.model_copy(update={"spec": job().spec}))  # type: ignore[union-attr]
    decision = decide(resumed)
    assert decision.actions == (LaunchAttempt(2),)
    assert decision.status is not None
    assert decision.status.attempts.failed == 0
    assert condition(decision, ConditionType.SUSPENDED).reason == Reason.RESUMED
    assert [event.reason for event in decision.events] == [Reason.RESUMED]


def test_a_job_resumed_while_its_run_still_ends_waits_for_the_end() -> None:
    ending = job(status={"attempts": attempts(active_for=None)})
    assert decide(seen(ending, run(stopping=True))).actions == ()
    assert decide(seen(ending, run())).actions == (StopAttempt(1),)
    assert decide(seen(ending, run(RunPhase.STOPPED))).actions == (LaunchAttempt(2),)


def test_a_failed_run_without_a_record_is_counted_and_retried_after_a_delay() -> None:
    failed = seen(under_way(active_for=30), run(RunPhase.FAILED, reason="AppFailed", message="exit code 1"))
    decision = decide(failed)
    assert decision.actions == ()
    assert decision.recheck_after == DEFAULT_POLICY.retry_base
    due = replace(after(failed, decision), now=NOW + DEFAULT_POLICY.retry_base)
    assert decide(due).actions == (LaunchAttempt(2),)
    assert decision.failed_attempt == Reason.RUN_FAILED
    assert decision.status is not None
    assert (decision.status.attempts.failed, decision.status.attempts.active_seconds) == (1, 30)
    assert "AppFailed: exit code 1" in decision.events[0].note


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (RunPhase.SUCCEEDED, Reason.NO_FINAL_RECORD),
        (RunPhase.STOPPED, Reason.RUN_STOPPED),
        (RunPhase.FAILED, Reason.RUN_FAILED),
        (None, Reason.RUN_VANISHED),
    ],
)
def test_no_end_without_the_trainers_record_is_a_success(phase: RunPhase | None, reason: Reason) -> None:
    decision = decide(seen(under_way(backoffLimit=0), run(phase) if phase else None))
    failed = condition(decision, ConditionType.FAILED)
    assert failed.reason == Reason.BACKOFF_LIMIT_EXCEEDED
    assert f"the last one: {reason}" in failed.message
    assert decision.actions == ()


def test_the_last_allowed_retry_is_made_and_none_after_it() -> None:
    last = seen(under_way(failed=2, backoffLimit=3), run(RunPhase.FAILED))
    assert decide(replace(after(last, decide(last)), now=NOW + DEFAULT_POLICY.retry_max)).launches
    over = decide(seen(under_way(failed=3, backoffLimit=3), run(RunPhase.FAILED)))
    assert not over.launches
    assert over.status is not None
    assert over.status.attempts.failed == 4


def test_a_success_needs_no_word_of_the_launcher() -> None:
    status = final(Outcome.SUCCEEDED, TrainerReason.TARGET_MET)
    assert decide(seen(under_way(status=status), obstacle="Ray cannot be reached")).rule == "succeeded"


def test_a_job_suspended_at_its_deadline_is_suspended_and_can_be_given_more_time() -> None:
    assert decide(seen(under_way(suspend=True, active_for=99, activeDeadlineSeconds=9), run())).rule == "suspended"


def test_a_run_that_its_launcher_found_invalid_is_not_tried_again() -> None:
    invalid = run(RunPhase.FAILED, reason=Reason.SUBMISSION_FAILED, message="rayClusterSpec is wrong")
    failed = condition(decide(seen(under_way(backoffLimit=9), invalid)), ConditionType.FAILED)
    assert (failed.reason, failed.message) == (Reason.SUBMISSION_FAILED, "rayClusterSpec is wrong")


def test_a_relaunch_after_a_queue_says_of_the_queue_what_the_next_look_says() -> None:
    waited = {"type": "Queued", "status": "False", "reason": "Admitted", "lastTransitionTime": NOW.isoformat()}
    status = {"attempts": attempts(active_for=None), "conditions": [waited]}
    launched = after(seen(job(status=status)), decision := decide(seen(job(status=status))))
    pending = run(RunPhase.PENDING, attempt=2, message=HANDED_OVER)
    assert decide(replace(launched, run=pending)).status == decision.status


@pytest.mark.parametrize("phase", [*RunPhase, None])
def test_the_trainers_success_wins_over_whatever_became_of_its_run(phase: RunPhase | None) -> None:
    status = final(Outcome.SUCCEEDED, TrainerReason.TARGET_MET)
    for suspend in (True, False):
        decision = decide(
            seen(
                under_way(status=status, suspend=suspend, activeDeadlineSeconds=1, active_for=9),
                run(phase) if phase else None,
            )
        )
        complete = condition(decision, ConditionType.COMPLETE)
        assert (complete.status, complete.reason) == ("True", TrainerReason.TARGET_MET)
        assert decision.status is not None
        assert decision.status.phase is Phase.SUCCEEDED


def test_an_earlier_attempts_failure_is_not_this_ones() -> None:
    status = final(Outcome.FAILED, TrainerReason.DATA_EMPTY, attempt=1) | {"attempts": attempts(2)}
    decision = decide(seen(job(status=status), run(attempt=2)))
    assert decision.rule == "watching"


def test_a_failure_that_no_retry_cures_ends_the_job_at_once() -> None:
    status = final(Outcome.FAILED, TrainerReason.DATA_EMPTY)
    decision = decide(seen(under_way(status=status), run(RunPhase.FAILED)))
    assert condition(decision, ConditionType.FAILED).reason == TrainerReason.DATA_EMPTY
    assert not decision.launches


def test_a_failure_that_a_retry_may_cure_waits_for_the_trainers_end_and_is_then_retried() -> None:
    status = final(Outcome.FAILED, TrainerReason.WORKER_LOST)
    status["progress"] = {"percent": 10, "lastUpdateTime": NOW.isoformat()}
    waiting = seen(under_way(status=status), run())
    assert decide(waiting).actions == ()
    assert decide(replace(waiting, now=NOW + STOP_GRACE)).actions == (StopAttempt(1),)
    ended = replace(waiting, run=run(RunPhase.FAILED))
    assert decide(replace(after(ended, decide(ended)), now=NOW + DEFAULT_POLICY.retry_max)).actions == (
        LaunchAttempt(2),
    )


def test_the_active_deadline_stops_and_fails_the_job_and_adds_up_over_attempts() -> None:
    almost = seen(under_way(active_for=30, before=69, activeDeadlineSeconds=100), run())
    assert decide(almost).recheck_after == timedelta(seconds=1)
    decision = decide(replace(almost, now=NOW + timedelta(seconds=1)))
    assert condition(decision, ConditionType.FAILED).reason == Reason.DEADLINE_EXCEEDED
    assert decision.actions == (StopAttempt(1),)


def test_the_startup_deadline_fails_the_job_with_what_it_was_waiting_for() -> None:
    starting = seen(under_way(active_for=60, startupDeadlineSeconds=60), run(RunPhase.STARTING, message="ErrImagePull"))
    decision = decide(starting)
    failed = condition(decision, ConditionType.FAILED)
    assert failed.reason == Reason.STARTUP_DEADLINE_EXCEEDED
    assert "ErrImagePull" in failed.message
    assert decide(replace(starting, run=run(RunPhase.RUNNING))).rule == "watching"


def test_time_in_a_queue_counts_for_no_deadline() -> None:
    limits = {"startupDeadlineSeconds": 60, "activeDeadlineSeconds": 60}
    queued = seen(under_way(active_for=0, **limits), run(RunPhase.QUEUED, message="waiting in queue gpus"))
    waiting = after(queued, decide(queued))
    assert waiting.job.status.phase is Phase.QUEUED
    later = NOW + timedelta(hours=9)
    assert decide(replace(waiting, now=later)).rule == "watching"
    admitted = replace(waiting, run=run(RunPhase.STARTING), now=later)
    admitted = after(admitted, decide(admitted))
    assert decide(replace(admitted, now=later + timedelta(seconds=59))).rule == "watching"
    assert decide(replace(admitted, now=later + timedelta(seconds=60))).rule == "deadline_exceeded"


def test_a_preempted_job_keeps_the_active_time_that_it_had() -> None:
    admitted_at = (NOW - timedelta(seconds=50)).isoformat()
    admitted = {"type": "Queued", "status": "False", "reason": "Admitted", "lastTransitionTime": admitted_at}
    once = under_way(active_for=90, activeDeadlineSeconds=60, status={"conditions": [admitted]})
    preempted = seen(once, run(RunPhase.QUEUED))
    decision = decide(preempted)
    assert decision.status is not None
    assert decision.status.attempts.active_seconds == 50
    waiting = after(preempted, decision)
    assert decide(replace(waiting, now=NOW + timedelta(hours=1))).status == decision.status


def test_a_launch_refused_for_good_fails_the_job_with_the_refusal() -> None:
    decision = decide(seen(job(), refusal="spec.x: invalid"))
    failed = condition(decision, ConditionType.FAILED)
    assert (failed.reason, failed.message) == (Reason.SUBMISSION_FAILED, "spec.x: invalid")


def test_an_unreachable_launcher_fails_nothing_and_is_told_once() -> None:
    away = seen(under_way(active_for=10_000, activeDeadlineSeconds=1), obstacle="Ray cannot be reached")
    decision = decide(away)
    assert decision.actions == ()
    ready = condition(decision, ConditionType.CLUSTER_READY)
    assert (ready.status, ready.reason) == ("Unknown", Reason.LAUNCHER_UNAVAILABLE)
    assert len(decision.events) == 1
    assert decide(after(away, decision)).events == ()


def test_a_broken_spec_is_told_by_field_and_remedy_and_stops_what_runs() -> None:
    broken = document(status={"attempts": attempts()}, backbone={"architecture": "resnet19"})
    stored = read_job(broken)
    assert isinstance(stored, InvalidJob)
    decision = decide(seen(stored, run()))
    accepted = condition(decision, ConditionType.ACCEPTED)
    assert (accepted.status, accepted.reason) == ("False", Reason.INVALID_SPEC)
    assert "spec.backbone.architecture" in accepted.message
    assert "resnet18" in accepted.message
    assert condition(decision, ConditionType.FAILED).message == accepted.message
    assert decision.actions == (StopAttempt(1),)


def finished(over_for: float, **spec: object) -> dict[str, object]:
    at = (NOW - timedelta(seconds=over_for)).isoformat()
    ended = {"type": "Complete", "status": "True", "reason": "TargetMet", "lastTransitionTime": at}
    return {"status": {"conditions": [ended], "finishedAt": at, "attempts": attempts(active_for=None)}, **spec}


def test_a_finished_job_is_deleted_when_its_time_is_over_and_not_before() -> None:
    assert decide(seen(job(**finished(9, ttlSecondsAfterFinished=10)))).recheck_after == timedelta(seconds=1)
    assert decide(seen(job(**finished(10, ttlSecondsAfterFinished=10)))).actions == (DeleteJob(),)
    assert decide(seen(job(**finished(10**9)))).actions == ()


def test_a_run_that_outlives_its_finished_job_is_stopped() -> None:
    assert decide(seen(job(**finished(0)), run())).actions == ()
    assert decide(seen(job(**finished(STOP_GRACE.total_seconds())), run())).actions == (StopAttempt(1),)


def test_a_job_that_is_being_deleted_is_stopped_and_not_written_to() -> None:
    decision = decide(seen(under_way(metadata={"deletionTimestamp": NOW.isoformat()}), run()))
    assert decision.actions == (StopAttempt(1),)
    assert decision.status is None


def test_a_silent_trainer_is_called_stalled() -> None:
    progress = {"percent": 10, "lastUpdateTime": NOW.isoformat()}
    since = {"type": "Running", "status": "True", "reason": "TrainerRunning", "lastTransitionTime": NOW.isoformat()}
    status = {"trainer": {"attempt": 1, "sequence": 3}, "progress": progress, "conditions": [since]}
    reporting = seen(under_way(status=status), run(), now=NOW + DEFAULT_POLICY.stall - timedelta(seconds=1))
    assert condition(decide(reporting), ConditionType.PROGRESSING).reason == Reason.REPORTING
    assert decide(reporting).recheck_after == timedelta(seconds=1)
    silent = replace(reporting, now=NOW + DEFAULT_POLICY.stall)
    assert condition(decide(silent), ConditionType.PROGRESSING).reason == Reason.STALLED
    assert [event.reason for event in decide(silent).events] == [Reason.STALLED]
    assert decide(after(silent, decide(silent))).events == ()


def test_a_checkpoint_is_told_of() -> None:
    checkpoint = {"stage": 1, "epoch": 2, "step": 30, "time": NOW.isoformat()}
    with_one = decide(seen(under_way(status={"checkpoint": checkpoint}), run()))
    assert condition(with_one, ConditionType.CHECKPOINT_AVAILABLE).status == "True"
    assert condition(decide(seen(under_way(), run())), ConditionType.CHECKPOINT_AVAILABLE).status == "False"


GIVEN_UP = {"reason": "/cache: No space left on device", "failed": True}
HEAD = {"index": 1, "name": "head", "epochs": 3, "seconds": 9.0, "ended": "Plateau"}
UNDER_TRAINING = {
    "index": 2,
    "of": 2,
    "name": "layer4",
    "unfrozen": ["layer4", "head"],
    "trainableParameters": 8,
    "totalParameters": 9,
}


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        ({"stages": [HEAD | {"cache": GIVEN_UP}], "stage": UNDER_TRAINING}, "stage 1 (head)"),
        ({"stages": [HEAD | {"cache": {}}], "stage": UNDER_TRAINING | {"cache": GIVEN_UP}}, "stage 2 (layer4)"),
    ],
)
def test_a_cache_that_was_given_up_degrades_the_job_to_its_end(status: dict[str, Any], stage: str) -> None:
    training = decide(seen(under_way(status=status), run()))
    told = condition(training, ConditionType.DEGRADED)
    assert (told.status, told.reason) == ("True", Reason.CACHE_GIVEN_UP)
    assert told.message.startswith(stage)
    assert "No space left on device" in told.message
    assert training.status is not None
    assert training.status.phase is Phase.RUNNING
    last_word = final(Outcome.SUCCEEDED, TrainerReason.STAGES_COMPLETED)
    ended = decide(seen(under_way(status=status | last_word), run(RunPhase.SUCCEEDED)))
    assert condition(ended, ConditionType.DEGRADED) == told
    assert condition(ended, ConditionType.COMPLETE).status == "True"


def test_a_cache_that_was_given_up_is_told_as_an_event_once() -> None:
    training = seen(under_way(status={"stages": [HEAD | {"cache": GIVEN_UP}], "stage": UNDER_TRAINING}), run())
    decision = decide(training)
    (told,) = decision.events
    assert (told.reason, told.severity) == (Reason.CACHE_GIVEN_UP, Severity.WARNING)
    assert "No space left on device" in told.note
    assert decide(after(training, decision)).events == ()


def test_a_job_whose_cache_works_is_not_said_to_be_degraded() -> None:
    status = {"stages": [HEAD | {"cache": {"views": 1}}], "stage": UNDER_TRAINING | {"cache": {"views": 1}}}
    decision = decide(seen(under_way(status=status), run()))
    assert decision.status is not None
    assert ConditionType.DEGRADED not in {one.type for one in decision.status.conditions}


def test_a_conditions_transition_time_moves_only_with_its_status() -> None:
    starting = seen(under_way(), run(RunPhase.STARTING, message="no node has room"))
    before = after(starting, decide(starting))
    later = replace(before, now=NOW + timedelta(seconds=9), run=run(RunPhase.STARTING, message="pulling the image"))
    still = condition(decide(later), ConditionType.RUNNING)
    assert (still.message, still.last_transition_time) == ("pulling the image", NOW)
    running = condition(decide(replace(later, run=run())), ConditionType.RUNNING)
    assert running.last_transition_time == later.now


ELASTIC = {"elastic": {"min": 2, "max": 8}}


def test_a_running_elastic_attempt_is_asked_room_for_all_its_workers() -> None:
    decision = decide(seen(under_way(workers=ELASTIC), run(RunPhase.RUNNING)))
    assert decision.actions == (AskForWorkers(1, 8),)


@pytest.mark.parametrize(
    "given",
    [
        seen(under_way(workers=ELASTIC), run(RunPhase.STARTING)),
        seen(under_way(workers=ELASTIC), run(RunPhase.RUNNING, stopping=True)),
        seen(under_way(workers={"replicas": 8}), run(RunPhase.RUNNING)),
    ],
)
def test_no_more_is_asked_for_before_it_runs_or_where_the_number_is_fixed(given: Observed) -> None:
    assert decide(given).actions == ()
