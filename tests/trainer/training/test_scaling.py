"""How many workers train, decided without a Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

from snowmelt_trainer.contract.run import WorkerGroup
from snowmelt_trainer.driver.launch import workers_here
from snowmelt_trainer.driver.scaling import ResizeAtCheckpoint, scaling_config

ELASTIC = WorkerGroup.model_validate({"elastic": {"min": 2, "max": 4}, "cpus": 2})


@dataclass
class Desk:
    log: list[str] = field(default_factory=list)
    answer: bool = False

    def ask(self) -> None:
        self.log.append("ask")

    def withdraw(self) -> None:
        self.log.append("withdraw")

    def answered(self) -> bool:
        return self.answer


@dataclass
class Group:
    num_workers: int
    start_time: float = float("-inf")


class Policy(ResizeAtCheckpoint):
    """With nodes of the test's choice; each holds so many CPUs."""

    nodes: dict[str, float] | None

    def _maybe_send_resource_request(self) -> None:
        pass

    def _get_reserved_resources(self) -> Any:
        return None if self.nodes is None else {name: {"CPU": cpus} for name, cpus in self.nodes.items()}


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def policy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Policy:
    monkeypatch.setattr("snowmelt_trainer.driver.scaling.LOOK_FOR_ROOM_SECONDS", 0.0)
    policy = Policy(scaling_config(ELASTIC), desk)  # type: ignore[arg-type]
    policy.nodes = {"a": 4.0, "b": 2.0}
    return policy


def size(decision: object) -> int | None:
    return decision.num_workers if isinstance(decision, ResizeDecision) else None


def running(policy: Policy, workers: int) -> int | None:
    return size(policy.make_decision_for_running_worker_group(Group(workers), None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "workers"),
    [
        ({"a": 4.0, "b": 2.0}, 3),
        ({"a": 64.0}, 4),
        ({"a": 4.0}, 2),
        ({"a": 3.0}, None),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_run_starts_with_what_there_is_room_for_once_this_is_enough(
    policy: Policy, nodes: dict[str, float] | None, workers: int | None
) -> None:
    policy.nodes = nodes
    assert size(policy.make_decision_for_non_running_worker_group()) == workers


def test_a_healthy_group_grows_only_after_a_checkpoint(policy: Policy, desk: Desk) -> None:
    assert [running(policy, 2) for _ in range(3)] == [None, None, None]
    assert desk.log == ["ask"]
    desk.answer = True
    assert running(policy, 2) == 3
    assert desk.log == ["ask", "withdraw"]


def test_the_room_is_looked_at_again_when_the_checkpoint_is_there(policy: Policy, desk: Desk) -> None:
    running(policy, 2)
    desk.answer = True
    policy.nodes = {"a": 8.0}
    assert running(policy, 2) == 4
    running(policy, 4)
    assert desk.log == ["ask", "withdraw"]  # four workers, and room for four


def test_a_node_that_went_again_before_the_checkpoint_changes_nothing(policy: Policy, desk: Desk) -> None:
    running(policy, 2)
    desk.answer = True
    policy.nodes = {"a": 4.0}
    assert running(policy, 2) is None


def test_a_group_that_fails_while_a_checkpoint_is_waited_for_starts_anew_at_once(policy: Policy, desk: Desk) -> None:
    running(policy, 2)
    assert size(policy.make_decision_for_non_running_worker_group()) == 3
    assert desk.log == ["ask", "withdraw"]


def test_a_healthy_group_is_left_alone_where_nothing_changed_or_too_few_could_go_on(policy: Policy, desk: Desk) -> None:
    assert running(policy, 3) is None
    policy.nodes = {"a": 2.0}
    assert running(policy, 3) is None
    policy.nodes = None
    assert running(policy, 3) is None
    assert desk.log == []
    assert isinstance(policy.make_decision_for_non_running_worker_group(), NoopDecision)


@pytest.mark.parametrize(
    ("workers", "cpus", "there"),
    [
        (WorkerGroup(replicas=3), 1, 3),
        (WorkerGroup.model_validate({"elastic": {"min": 1, "max": 4}}), 2, 2),
        (WorkerGroup.model_validate({"elastic": {"min": 1, "max": 4}}), 64, 4),
        (WorkerGroup.model_validate({"elastic": {"min": 3, "max": 4}, "cpus": 2}), 2, 3),
    ],
)
def test_a_ray_of_our_own_has_room_for_as_many_workers_as_this_machine_has_cpus(
    workers: WorkerGroup, cpus: int, there: int
) -> None:
    assert workers_here(workers, cpus) == there
