"""Observe, decide, act, report, with faults in between."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.cluster import ClusterRefusedError, ClusterUnavailableError
from snowmelt_operator.decide.state import find_condition, is_finished
from snowmelt_operator.launchers.base import LauncherUnavailableError, LaunchRefusedError
from snowmelt_operator.queue import RetryLaterError
from snowmelt_operator.reconcile import AT_ONCE, Reconciler, Resync
from snowmelt_operator.store import JobStore, Key
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.reasons import Reason as TrainerReason
from tests.unit.operator_core.building import NOW, UID, attempts, document, final, run
from tests.unit.operator_core.scripted import ScriptedCluster, ScriptedLauncher, means

SHOES = Key("team", "shoes")


@dataclass
class World:
    store: JobStore
    cluster: ScriptedCluster
    launcher: ScriptedLauncher
    reconcile: Reconciler

    def reason(self, type_: ConditionType) -> str | None:
        job = self.store.get(SHOES)
        condition = find_condition(job.status.conditions, type_) if job is not None else None
        return None if condition is None else condition.reason


@pytest.fixture
def world() -> World:
    store = JobStore()
    cluster, launcher = ScriptedCluster(store), ScriptedLauncher()
    return World(store, cluster, launcher, Reconciler(store, means(cluster, launcher), now=lambda: NOW))


async def test_a_launch_takes_one_read_one_status_and_one_event(world: World) -> None:
    world.cluster.put(document())
    await world.reconcile(SHOES)
    assert world.cluster.calls == ["get_job", "apply_status", "record_event"]
    assert len(world.launcher.launched) == 1


async def test_looking_again_costs_no_request(world: World) -> None:
    world.cluster.put(document())
    await world.reconcile(SHOES)
    world.cluster.calls.clear()
    await world.reconcile(SHOES)
    assert world.cluster.calls == []


async def test_what_is_launched_is_decided_on_the_newest_job_not_on_memory(world: World) -> None:
    world.cluster.put(document())
    newer = document(suspend=True, metadata={"resourceVersion": "5", "generation": 2})
    world.cluster.documents["team", "shoes"] = newer
    await world.reconcile(SHOES)
    assert world.launcher.launched == []
    assert world.reason(ConditionType.SUSPENDED) == Reason.SUSPENDED_BY_USER


async def test_a_success_that_the_watch_has_not_told_yet_is_no_failure(world: World) -> None:
    world.cluster.put(document(status={"attempts": attempts()}, backoffLimit=0))
    world.launcher.runs[UID, 1] = run(RunPhase.SUCCEEDED)
    status = final(Outcome.SUCCEEDED, TrainerReason.TARGET_MET) | {"attempts": attempts()}
    world.cluster.documents["team", "shoes"] = document(
        status=status, metadata={"resourceVersion": "7"}, backoffLimit=0
    )
    await world.reconcile(SHOES)
    assert world.reason(ConditionType.COMPLETE) == TrainerReason.TARGET_MET


async def test_a_job_deleted_before_its_launch_is_not_launched(world: World) -> None:
    world.cluster.put(document())
    world.cluster.documents.clear()
    await world.reconcile(SHOES)
    assert world.launcher.launched == []
    assert world.store.get(SHOES) is None


async def test_a_status_that_could_not_be_written_is_written_later_without_a_second_launch(world: World) -> None:
    world.cluster.put(document())
    world.cluster.fails["apply_status"] = ClusterUnavailableError("away")
    with pytest.raises(RetryLaterError, match="away"):
        await world.reconcile(SHOES)
    await world.reconcile(SHOES)
    assert {launch.attempt for launch in world.launcher.launched} == {1}
    job = world.store.get(SHOES)
    assert job is not None
    assert job.status.attempts.current == 1


async def test_what_was_decided_on_a_job_is_not_written_to_its_successor(world: World) -> None:
    world.cluster.put(document(status={"attempts": attempts()}))
    world.launcher.runs[UID, 1] = run(RunPhase.RUNNING)
    world.cluster.documents["team", "shoes"] = document(metadata={"uid": "another", "resourceVersion": "9"})
    assert await world.reconcile(SHOES) == AT_ONCE
    assert world.cluster.documents["team", "shoes"]["status"] == {}
    await world.reconcile(SHOES)
    assert world.launcher.stopped == ["shoes-a1"]
    assert [launch.job.metadata.uid for launch in world.launcher.launched] == ["another"]


async def test_an_event_that_could_not_be_recorded_stops_nothing(world: World) -> None:
    world.cluster.put(document())
    world.cluster.fails["record_event"] = ClusterRefusedError("no", status=403, reason="Forbidden")
    await world.reconcile(SHOES)
    assert len(world.launcher.launched) == 1


async def test_a_launcher_that_is_away_is_told_in_the_status_and_tried_again(world: World) -> None:
    world.cluster.put(document())
    world.launcher.fails["launch"] = LauncherUnavailableError("Ray cannot be reached at http://ray")
    with pytest.raises(RetryLaterError, match="Ray cannot be reached"):
        await world.reconcile(SHOES)
    assert world.reason(ConditionType.CLUSTER_READY) == Reason.LAUNCHER_UNAVAILABLE
    await world.reconcile(SHOES)
    assert len(world.launcher.launched) == 1
    assert world.reason(ConditionType.CLUSTER_READY) == Reason.STARTING


async def test_a_launch_that_is_refused_for_good_ends_the_job(world: World) -> None:
    world.cluster.put(document())
    world.launcher.fails["launch"] = LaunchRefusedError("spec.runtime.env[0].valueFrom: cannot be read")
    await world.reconcile(SHOES)
    assert world.reason(ConditionType.FAILED) == Reason.SUBMISSION_FAILED
    job = world.store.get(SHOES)
    assert job is not None
    assert is_finished(job.status)


async def test_a_broken_job_is_told_and_launches_nothing(world: World) -> None:
    world.cluster.put(document(backbone={"architecture": "resnet18", "frozen": True}))
    await world.reconcile(SHOES)
    assert world.reason(ConditionType.ACCEPTED) == Reason.INVALID_SPEC
    assert world.launcher.launched == []


async def test_the_run_of_a_deleted_job_is_stopped_even_when_the_first_try_fails(world: World) -> None:
    world.cluster.put(document(status={"attempts": attempts()}))
    world.launcher.runs[UID, 1] = run()
    world.store.remove(SHOES, UID)
    world.launcher.fails["stop"] = LauncherUnavailableError("away")
    with pytest.raises(RetryLaterError):
        await world.reconcile(SHOES)
    await world.reconcile(SHOES)
    assert world.launcher.stopped == ["shoes-a1"]
    assert world.store.gone(SHOES) == ()


async def test_the_trainer_is_told_its_job_its_attempt_and_where_to_report(world: World) -> None:
    world.cluster.put(document(status={"attempts": attempts(1, active_for=None)}))
    await world.reconcile(SHOES)
    (launch,) = world.launcher.launched
    assert (launch.config.job.uid, launch.config.job.attempt, launch.attempt) == (UID, 2, 2)
    assert launch.config.progress is not None
    assert launch.config.progress.url == "http://progress.example/v1/namespaces/team/finetunejobs/shoes/progress"


def resync(world: World, woken: list[Key]) -> Resync:
    wiring = means(world.cluster, world.launcher)
    return Resync(world.store, wiring, wake=woken.append, listed=lambda: None, every=300, backoff_max=1)


async def test_a_resync_wakes_what_exists_and_what_vanished_and_sweeps_the_rest(world: World) -> None:
    world.cluster.put(document())
    world.cluster.put(document(metadata={"name": "hats", "uid": "hats"}))
    del world.cluster.documents["team", "shoes"]
    woken: list[Key] = []
    await resync(world, woken).once()
    assert set(woken) == {SHOES, Key("team", "hats")}
    assert world.store.get(SHOES) is None
    assert world.launcher.swept == [{"hats"}]


async def test_a_resync_without_the_launcher_wakes_the_jobs_and_sweeps_nothing(world: World) -> None:
    world.cluster.put(document())
    world.launcher.fails["refresh"] = LauncherUnavailableError("away")
    woken: list[Key] = []
    with pytest.raises(LauncherUnavailableError):
        await resync(world, woken).once()
    assert woken == [SHOES]
    assert world.launcher.swept == []


async def test_the_end_of_a_log_is_read_once_and_only_when_something_went_wrong(world: World) -> None:
    world.cluster.put(document(status={"attempts": attempts()}))
    world.launcher.runs[UID, 1] = run(RunPhase.RUNNING)
    world.launcher.words = LastWords("shoes-a1-head", "Killed")
    await world.reconcile(SHOES)
    assert world.launcher.read == 0
    world.launcher.trouble = (Trouble(Reason.CONTAINER_OOM_KILLED, "OOMKilled", "shoes-a1-head", NOW, is_over=True),)
    await world.reconcile(SHOES)
    await world.reconcile(SHOES)
    assert world.launcher.read == 1
    job = world.store.get(SHOES)
    assert job is not None
    assert [(each.reason, each.log) for each in job.status.incidents] == [(Reason.CONTAINER_OOM_KILLED, "Killed")]
    assert [event.reason for event in world.cluster.events] == [Reason.CONTAINER_OOM_KILLED]
