"""What comes of the pods' troubles, and of failed attempts, as facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.policy import DEFAULT_POLICY, Policy
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.api.status import MAX_INCIDENTS
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.decide import Observed, decide
from snowmelt_operator.decide.state import LaunchAttempt, StopAttempt
from snowmelt_operator.decide.troubles import CAUSE_WINDOW, SETTLE
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.reasons import Reason as TrainerReason
from tests.unit.operator_core.building import NOW, after, attempts, condition, final, job, run, seen, under_way


def trouble(reason: Reason, *, lasted: float = 10, message: str = "in the cluster's words", **about: bool) -> Trouble:
    return Trouble(reason, message, "shoes-a1-head", NOW - timedelta(seconds=lasted), **about)


def starting(*troubles: Trouble, **spec: object) -> Observed:
    return seen(under_way(active_for=300, **spec), run(RunPhase.STARTING), troubles=troubles)


LASTING = (
    Reason.IMAGE_PULL_ERROR,
    Reason.CONTAINER_START_ERROR,
    Reason.CONTAINER_CRASH_LOOP_BACK_OFF,
    Reason.CONTAINER_OOM_KILLED,
    Reason.UNSCHEDULABLE,
    Reason.VOLUME_ERROR,
    Reason.QUOTA_EXCEEDED,
    Reason.POD_REFUSED,
    Reason.NODE_LOST,
)
PERMANENT = {
    Reason.IMAGE_PULL_ERROR: DEFAULT_POLICY.image_pull_grace,
    Reason.VOLUME_ERROR: DEFAULT_POLICY.volume_grace,
    Reason.CONTAINER_START_ERROR: DEFAULT_POLICY.start_grace,
    Reason.QUOTA_EXCEEDED: DEFAULT_POLICY.start_grace,
    Reason.POD_REFUSED: DEFAULT_POLICY.start_grace,
}


@pytest.mark.parametrize("reason", LASTING)
def test_what_keeps_pods_from_running_is_said_in_the_condition_and_in_one_event(reason: Reason) -> None:
    world = starting(trouble(reason))
    decision = decide(world)
    ready = condition(decision, ConditionType.CLUSTER_READY)
    assert (ready.status, ready.reason, ready.message) == ("False", reason, "in the cluster's words")
    assert [(event.reason, event.note) for event in decision.events] == [(reason, "in the cluster's words")]
    again = decide(after(world, decision))
    assert again.events == ()
    assert again.status == decision.status


def test_a_trouble_of_a_moment_is_not_told_and_looked_at_again_when_it_would_be() -> None:
    decision = decide(starting(trouble(Reason.VOLUME_ERROR, lasted=2)))
    assert decision.events == ()
    assert condition(decision, ConditionType.CLUSTER_READY).reason == Reason.STARTING
    assert decision.recheck_after == SETTLE - timedelta(seconds=2)


@pytest.mark.parametrize(("reason", "grace"), PERMANENT.items())
def test_what_only_somebody_can_change_fails_the_job_after_its_grace_with_what_to_do(
    reason: Reason, grace: timedelta
) -> None:
    patient = starting(trouble(reason, lasted=grace.total_seconds() - 1, is_permanent=True), backoffLimit=9)
    assert decide(patient).rule == "watching"
    assert decide(patient).recheck_after == timedelta(seconds=1)
    decision = decide(replace(patient, now=NOW + timedelta(seconds=1)))
    failed = condition(decision, ConditionType.FAILED)
    assert failed.reason == reason
    assert "in the cluster's words" in failed.message
    assert "new FineTuneJob" in failed.message
    assert decision.actions == (StopAttempt(1),)
    assert reason in [event.reason for event in decision.events]


@pytest.mark.parametrize("reason", [Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED, Reason.VOLUME_ERROR])
def test_what_may_pass_is_waited_for_until_the_startup_deadline_which_names_it(reason: Reason) -> None:
    waits = starting(trouble(reason, lasted=299), startupDeadlineSeconds=301)
    assert decide(waits).rule == "watching"
    failed = condition(decide(replace(waits, now=NOW + timedelta(seconds=1))), ConditionType.FAILED)
    assert failed.reason == Reason.STARTUP_DEADLINE_EXCEEDED
    assert f"{reason}: in the cluster's words" in failed.message


@pytest.mark.parametrize("reason", [Reason.CONTAINER_CRASH_LOOP_BACK_OFF, Reason.CONTAINER_OOM_KILLED])
def test_containers_that_keep_dying_fail_the_attempt_and_not_the_job(reason: Reason) -> None:
    world = starting(trouble(reason, lasted=DEFAULT_POLICY.start_grace.total_seconds()))
    decision = decide(world)
    assert decision.actions == (StopAttempt(1),)
    assert decision.failed_attempt == reason
    assert condition(decision, ConditionType.RUNNING).reason == Reason.BACK_OFF
    stopping = replace(after(world, decision), run=run(RunPhase.STARTING, stopping=True))
    later = replace(stopping, now=NOW + DEFAULT_POLICY.retry_base)
    assert decide(later).actions == ()  # the first attempt has not ended yet
    assert decide(replace(later, run=None)).actions == (LaunchAttempt(2),)


@pytest.mark.parametrize("reason", PERMANENT)
def test_a_job_that_trains_is_not_given_up_for_one_pods_sake(reason: Reason) -> None:
    lost = trouble(reason, lasted=3000, is_permanent=True)
    decision = decide(seen(under_way(active_for=4000), run(cluster_ready=True), troubles=(lost,)))
    assert decision.rule == "watching"
    assert condition(decision, ConditionType.CLUSTER_READY).reason == reason
    assert condition(decision, ConditionType.RUNNING).status == "True"


def test_a_cluster_that_is_up_is_looked_at_as_often_as_ever_until_somebody_submits() -> None:
    """That the submitter is refused stands in Events, which nobody brings."""
    old = under_way(active_for=200)
    assert decide(seen(old, run(RunPhase.STARTING, awaits_submission=True))).recheck_after == timedelta(seconds=15)
    assert decide(seen(old, run(RunPhase.STARTING))).recheck_after == timedelta(seconds=50)


def test_of_two_troubles_the_cause_is_named_and_not_what_follows_from_it() -> None:
    world = starting(trouble(Reason.UNSCHEDULABLE), trouble(Reason.NODE_LOST))
    assert condition(decide(world), ConditionType.CLUSTER_READY).reason == Reason.NODE_LOST


@pytest.mark.parametrize(
    "reason", [Reason.CONTAINER_OOM_KILLED, Reason.POD_EVICTED, Reason.NODE_LOST, Reason.PREEMPTED]
)
def test_an_attempt_that_ended_because_of_its_pod_is_told_so_and_retried(reason: Reason) -> None:
    world = seen(
        under_way(active_for=300),
        run(RunPhase.FAILED, reason="AppFailed", message="job driver died"),
        troubles=(trouble(reason, is_over=True),),
    )
    decision = decide(world)
    assert decision.failed_attempt == reason
    assert {event.reason for event in decision.events} == {reason, Reason.RETRYING}
    assert "in the cluster's words; AppFailed: job driver died" in condition(decision, ConditionType.RUNNING).message


def test_what_befell_a_pod_is_still_the_cause_for_an_operator_that_was_restarted_since() -> None:
    world = seen(under_way(active_for=300), run(), troubles=(trouble(Reason.CONTAINER_OOM_KILLED, is_over=True),))
    recorded = after(world, decide(world))
    failed = replace(recorded, troubles=(), run=run(RunPhase.FAILED))
    assert decide(failed).failed_attempt == Reason.CONTAINER_OOM_KILLED


def test_what_befell_a_pod_long_ago_is_not_why_the_attempt_failed() -> None:
    long_ago = trouble(Reason.NODE_LOST, lasted=CAUSE_WINDOW.total_seconds() + 1, is_over=True)
    world = seen(under_way(active_for=3000), run(RunPhase.FAILED), troubles=(long_ago,))
    assert decide(world).failed_attempt == Reason.RUN_FAILED


def test_a_worker_that_the_trainer_lost_is_lost_for_the_reason_its_pod_gives() -> None:
    status = final(Outcome.FAILED, TrainerReason.WORKER_LOST)
    world = seen(
        under_way(active_for=300, status=status),
        run(RunPhase.FAILED),
        troubles=(trouble(Reason.CONTAINER_OOM_KILLED, is_over=True),),
    )
    assert decide(world).failed_attempt == Reason.CONTAINER_OOM_KILLED


def test_the_trainers_own_reason_is_kept_where_it_has_one() -> None:
    status = final(Outcome.FAILED, TrainerReason.GPU_OUT_OF_MEMORY)
    killed = trouble(Reason.CONTAINER_OOM_KILLED, is_over=True)
    world = seen(under_way(active_for=300, status=status), run(RunPhase.FAILED), troubles=(killed,))
    assert decide(world).failed_attempt == TrainerReason.GPU_OUT_OF_MEMORY


def test_the_end_of_the_log_is_kept_with_what_it_is_about() -> None:
    words = LastWords("shoes-a1-head", "Killed")
    killed = trouble(Reason.CONTAINER_OOM_KILLED, is_over=True)
    world = seen(under_way(active_for=300), run(), troubles=(killed,))
    assert decide(world).has_news(world)
    status = decide(replace(world, last_words=words)).status
    assert status is not None
    (incident,) = status.incidents
    assert (incident.reason, incident.pod, incident.log) == (Reason.CONTAINER_OOM_KILLED, "shoes-a1-head", "Killed")


def test_incidents_of_older_attempts_make_room_for_those_of_newer_ones_wherever_they_stand() -> None:
    older = (Reason.VOLUME_ERROR, Reason.UNSCHEDULABLE, Reason.NODE_LOST, Reason.POD_REFUSED)
    told = [(3, Reason.IMAGE_PULL_ERROR), *((1, reason) for reason in older)]
    entries = [{"attempt": n, "reason": reason, "message": "was", "time": NOW.isoformat()} for n, reason in told]
    status = {"attempts": attempts(3, active_for=300), "incidents": entries}
    failing = trouble(Reason.CONTAINER_START_ERROR)
    world = seen(under_way(status=status), run(RunPhase.STARTING, attempt=3), troubles=(failing,))
    decided = decide(world).status
    assert decided is not None
    found = [(each.attempt, each.reason) for each in decided.incidents]
    assert found == [*((1, reason) for reason in older[1:]), *told[:1], (3, failing.reason)]


def test_an_attempt_whose_incidents_fill_the_list_gets_no_more_even_where_they_are_the_same_one() -> None:
    """Only somebody else can have written that; each new incident would push out one that is then new again."""
    same = {"attempt": 1, "reason": Reason.IMAGE_PULL_ERROR, "message": "was", "time": NOW.isoformat()}
    status = {"attempts": attempts(1, active_for=300), "incidents": [same] * MAX_INCIDENTS}
    failing = trouble(Reason.CONTAINER_START_ERROR)
    decided = decide(seen(under_way(status=status), run(RunPhase.STARTING), troubles=(failing,))).status
    assert decided is not None
    assert [each.reason for each in decided.incidents] == [Reason.IMAGE_PULL_ERROR] * MAX_INCIDENTS


def test_a_failed_attempt_is_recorded_with_the_end_of_the_submitters_log() -> None:
    words = LastWords("shoes-a1-x", "ModuleNotFoundError: No module named 'snowmelt_trainer'")
    world = seen(under_way(active_for=300), run(RunPhase.FAILED, message="exit code 1"), last_words=words)
    status = decide(world).status
    assert status is not None
    assert [(each.reason, each.log) for each in status.incidents] == [(Reason.RUN_FAILED, words.text)]


def test_a_stalled_attempt_is_given_up_and_retried() -> None:
    began = {"type": "Running", "status": "True", "reason": "TrainerRunning", "lastTransitionTime": NOW.isoformat()}
    patience = DEFAULT_POLICY.stall + DEFAULT_POLICY.stall_grace
    silent = seen(under_way(status={"conditions": [began]}), run(), now=NOW + patience - timedelta(seconds=1))
    assert condition(decide(silent), ConditionType.PROGRESSING).reason == Reason.STALLED
    assert decide(silent).recheck_after == timedelta(seconds=1)
    decision = decide(replace(silent, now=NOW + patience))
    assert decision.failed_attempt == Reason.STALLED
    assert decision.actions == (StopAttempt(1),)


def test_the_delay_before_an_attempt_doubles_up_to_a_longest_one() -> None:
    delays = [DEFAULT_POLICY.retry_delay(futile).total_seconds() for futile in range(1, 9)]
    assert delays == [10, 20, 40, 80, 160, 320, 360, 360]
    assert Policy(retry_base=timedelta()).retry_delay(1000) == timedelta()


def test_the_delay_grows_with_failures_and_falls_back_after_a_new_checkpoint() -> None:
    third = {"attempts": attempts(3, failed=2, active_for=100) | {"futile": 2}}
    futile = decide(seen(job(status=third), run(RunPhase.FAILED, attempt=3)))
    assert futile.recheck_after == timedelta(seconds=40)
    written = {"stage": 1, "epoch": 1, "step": 0, "time": (NOW - timedelta(seconds=50)).isoformat()}
    fruitful = decide(seen(job(status=third | {"checkpoint": written}), run(RunPhase.FAILED, attempt=3)))
    assert fruitful.recheck_after == timedelta(seconds=10)
    assert fruitful.status is not None
    assert fruitful.status.attempts.futile == 1


def test_while_an_attempt_is_held_back_the_status_says_until_when_and_why() -> None:
    failed = seen(under_way(active_for=30), run(RunPhase.FAILED, message="exit code 1"))
    decision = decide(failed)
    running = condition(decision, ConditionType.RUNNING)
    assert running.reason == Reason.BACK_OFF
    assert "attempt 2 starts at 2026-11-24T12:00:10Z" in running.message
    assert "RunFailed: exit code 1" in running.message
    held_back = replace(after(failed, decision), now=NOW + timedelta(seconds=9))
    assert decide(held_back).actions == ()
    assert decide(held_back).recheck_after == timedelta(seconds=1)


def test_a_job_that_is_suspended_and_resumed_while_it_is_held_back_starts_at_once() -> None:
    failed = seen(under_way(active_for=30), run(RunPhase.FAILED))
    held_back = after(failed, decide(failed))
    suspending = replace(held_back, job=held_back.job.model_copy(update={"spec": job(suspend=True).spec}))  # type: ignore[union-attr]
    suspended = after(suspending, decide(suspending))
    resumed = replace(suspended, job=suspended.job.model_copy(update={"spec": job().spec}))  # type: ignore[union-attr]
    assert decide(resumed).actions == (LaunchAttempt(2),)
    assert [event.reason for event in decide(resumed).events] == [Reason.RESUMED]


def test_a_retry_of_a_job_that_was_resumed_once_is_not_called_another_resumption() -> None:
    was = {"type": "Suspended", "status": "False", "reason": "Resumed", "lastTransitionTime": NOW.isoformat()}
    failed = seen(under_way(active_for=30, status={"conditions": [was]}), run(RunPhase.FAILED))
    due = replace(after(failed, decide(failed)), now=NOW + timedelta(seconds=10))
    assert [event.reason for event in decide(due).events] == [Reason.LAUNCHED]


def test_pods_of_a_training_elastic_job_may_wait_for_room_and_other_troubles_are_told() -> None:
    waits, broken = trouble(Reason.UNSCHEDULABLE, lasted=3000), trouble(Reason.IMAGE_PULL_ERROR, lasted=3000)
    elastic = under_way(active_for=4000, workers={"elastic": {"min": 1, "max": 4}})
    decision = decide(seen(elastic, run(cluster_ready=True), troubles=(waits,)))
    assert condition(decision, ConditionType.CLUSTER_READY).status == "True"
    assert decision.events == ()
    decision = decide(seen(elastic, run(cluster_ready=True), troubles=(waits, broken)))
    assert [event.reason for event in decision.events] == [Reason.IMAGE_PULL_ERROR]
    decision = decide(starting(waits, workers={"elastic": {"min": 1, "max": 4}}))
    assert condition(decision, ConditionType.CLUSTER_READY).reason == Reason.UNSCHEDULABLE
