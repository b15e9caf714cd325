"""When a checkpoint is written because somebody asks, or because the last is old."""

from __future__ import annotations

from dataclasses import dataclass

from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.requests import CheckpointRequests


@dataclass
class Desk:
    now: float = 0.0
    open: bool = False
    looks: int = 0
    kept: int = 0

    def clock(self) -> float:
        return self.now

    def asked(self) -> bool:
        self.looks += 1
        return self.open

    def keep(self) -> None:
        self.kept += 1


def requests(desk: Desk, *, every_seconds: float | None = None, enabled: bool = True) -> CheckpointRequests:
    return CheckpointRequests(
        World(), desk.asked, desk.keep, every_seconds=every_seconds, clock=desk.clock, enabled=enabled
    )


def steps(desk: Desk, requests: CheckpointRequests, *, count: int, seconds: float) -> list[int]:
    """The steps, counted from 1, after which a checkpoint is due."""
    due = []
    for step in range(1, count + 1):
        desk.now += seconds
        if requests.due():
            due.append(step)
            requests.written()
    return due


def test_someone_who_asks_gets_a_checkpoint_within_two_seconds_of_quick_steps() -> None:
    desk = Desk()
    asked = requests(desk)
    assert steps(desk, asked, count=1000, seconds=0.01) == []
    desk.open = True
    first, *_ = steps(desk, asked, count=1000, seconds=0.01)
    assert first <= 200


def test_someone_who_asks_gets_a_checkpoint_after_the_slow_step_that_is_under_way() -> None:
    desk = Desk()
    asked = requests(desk)
    assert steps(desk, asked, count=5, seconds=30.0) == []
    desk.open = True
    assert steps(desk, asked, count=1, seconds=30.0) == [1]


def test_quick_steps_are_not_slowed_by_looking_at_each_of_them() -> None:
    desk = Desk()
    steps(desk, requests(desk), count=10_000, seconds=0.001)
    assert desk.looks <= 20


def test_a_checkpoint_becomes_no_older_than_it_may() -> None:
    desk = Desk()
    due = steps(desk, requests(desk, every_seconds=60.0), count=300, seconds=1.0)
    assert len(due) in (4, 5)
    assert desk.kept == len(due)


def test_nothing_is_due_where_the_number_of_workers_is_fixed() -> None:
    desk = Desk(open=True)
    assert steps(desk, requests(desk, every_seconds=1.0, enabled=False), count=100, seconds=10.0) == []
    assert desk.looks == 0
