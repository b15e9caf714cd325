"""One thing at a time, beside training, and nothing that goes wrong there is lost."""

from __future__ import annotations

import threading
import time

import pytest

from snowmelt_trainer.training.beside import Beside, Piece, Rest


def test_work_goes_on_beside_and_is_told_of_at_the_next_look() -> None:
    may_end, told = threading.Event(), []
    with Beside() as beside:
        beside.do(Piece(lambda: may_end.wait(30.0), lambda: told.append("done")))
        beside.look()
        assert told == []
        assert not beside.free
        may_end.set()
        beside.settle()
        assert told == ["done"]
        beside.look()
        assert told == ["done"]


def test_the_second_waits_for_the_first() -> None:
    order: list[str] = []
    with Beside() as beside:
        beside.do(Piece(lambda: order.append("first"), lambda: order.append("told of it")))
        beside.do(Piece(lambda: order.append("second"), lambda: None))
    assert order == ["first", "told of it", "second"]


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are outside of the tests."""
    monkeypatch.setattr("snowmelt_trainer.training.beside.SHARE", 0.01)


def compute(seconds: float) -> None:
    """Takes as much processor time of its thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.usefixtures("rests")
def test_after_a_piece_there_is_a_rest_in_keeping_with_what_it_took_of_the_processors() -> None:
    now = 0.0
    with Beside(cpus=2.0, clock=lambda: now) as beside:
        assert beside.free
        beside.do(Piece(lambda: compute(0.2), lambda: None))
        beside.settle()
        now = 9.9
        assert not beside.free
        now = 60.0  # more than the 10 seconds, as the thread may have computed a little longer
        assert beside.free


@pytest.mark.usefixtures("rests")
def test_who_goes_on_where_another_ended_rests_after_what_that_did() -> None:
    rest, now = Rest(), 0.0
    with Beside(clock=lambda: now, rest=rest) as before:
        before.do(Piece(lambda: compute(0.2), lambda: None))
    with Beside(clock=lambda: now, rest=rest) as beside:
        assert not beside.free
        now = 120.0
        assert beside.free


@pytest.mark.usefixtures("rests")
def test_after_a_cheap_piece_there_is_no_rest() -> None:
    with Beside(clock=lambda: 0.0) as beside:
        beside.do(Piece(lambda: compute(0.01), lambda: None))
        beside.settle()
        assert beside.free


@pytest.mark.usefixtures("rests")
def test_waiting_for_slow_storage_takes_no_rest() -> None:
    may_end = threading.Event()
    now = 0.0
    with Beside(clock=lambda: now) as beside:
        beside.do(Piece(lambda: may_end.wait(30.0), lambda: None))
        now = 1000.0
        may_end.set()
        beside.settle()
        now = 1005.0
        assert beside.free


@pytest.mark.usefixtures("rests")
def test_who_must_not_be_passed_over_need_not_rest() -> None:
    done: list[str] = []
    with Beside(clock=lambda: 0.0) as beside:
        for name in ("first", "second"):
            beside.do(Piece(lambda: compute(0.2), lambda name=name: done.append(name)))  # type: ignore[misc]
    assert done == ["first", "second"]


def full() -> None:
    raise OSError(28, "No space left on device")


def test_an_error_is_raised_where_one_looks_and_nobody_is_told_of_success() -> None:
    told: list[str] = []
    beside = Beside()
    beside.do(Piece(full, lambda: told.append("done")))
    with pytest.raises(OSError, match="No space"):
        beside.settle()
    assert told == []


def test_leaving_raises_what_went_wrong_but_not_in_place_of_what_went_wrong_before() -> None:
    with pytest.raises(OSError, match="No space"), Beside() as beside:
        beside.do(Piece(full, lambda: None))
    with pytest.raises(ValueError, match="diverged"), Beside() as beside:
        diverge(beside)


def diverge(beside: Beside) -> None:
    beside.do(Piece(full, lambda: None))
    raise ValueError("diverged")
