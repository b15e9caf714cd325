"""One thing at a time, beside training, and nothing that goes wrong there is lost."""

from __future__ import annotations

import threading

import pytest

from snowmelt_trainer.training.beside import Beside, Piece


def test_work_goes_on_beside_and_is_told_of_at_the_next_look() -> None:
    may_end, told = threading.Event(), []
    with Beside() as beside:
        beside.do(Piece("one", lambda: may_end.wait(30.0), lambda: told.append("done")))
        beside.look()
        assert told == []
        may_end.set()
        beside.settle()
        assert told == ["done"]
        beside.look()
        assert told == ["done"]


def test_the_second_waits_for_the_first() -> None:
    order: list[str] = []
    with Beside() as beside:
        beside.do(Piece("one", lambda: order.append("first"), lambda: order.append("told of it")))
        beside.do(Piece("two", lambda: order.append("second"), lambda: None))
    assert order == ["first", "told of it", "second"]


def test_of_what_is_offered_meanwhile_the_last_waits_and_is_done_next() -> None:
    may_end, done = threading.Event(), []
    with Beside() as beside:
        beside.offer(Piece("first", lambda: may_end.wait(30.0), lambda: done.append("first")))
        assert beside.waiting == ""
        for name in ("passed over", "last"):
            beside.offer(Piece(name, lambda: None, lambda name=name: done.append(name)))  # type: ignore[misc]
        assert beside.waiting == "last"
        may_end.set()
        beside.settle()
        assert done == ["first", "last"]
        assert beside.waiting == ""


def test_what_waits_begins_at_a_look_once_there_is_room() -> None:
    may_end, second = threading.Event(), threading.Event()
    with Beside() as beside:
        first = threading.Event()
        beside.offer(Piece("first", lambda: may_end.wait(30.0) and first.set(), lambda: None))
        beside.offer(Piece("second", second.set, lambda: None))
        may_end.set()
        assert first.wait(30.0)
        while beside.waiting:
            beside.look()
        assert second.wait(30.0)


def full() -> None:
    raise OSError(28, "No space left on device")


def test_an_error_is_raised_where_one_looks_and_nobody_is_told_of_success() -> None:
    told: list[str] = []
    beside = Beside()
    beside.do(Piece("one", full, lambda: told.append("done")))
    with pytest.raises(OSError, match="No space"):
        beside.settle()
    assert told == []


def test_leaving_raises_what_went_wrong_but_not_in_place_of_what_went_wrong_before() -> None:
    with pytest.raises(OSError, match="No space"), Beside() as beside:
        beside.do(Piece("one", full, lambda: None))
    with pytest.raises(ValueError, match="diverged"), Beside() as beside:
        diverge(beside)


def diverge(beside: Beside) -> None:
    beside.do(Piece("one", full, lambda: None))
    raise ValueError("diverged")
