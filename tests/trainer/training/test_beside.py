"""One thing at a time, beside training, and nothing that goes wrong there is lost."""

from __future__ import annotations

import threading

import pytest

from snowmelt_trainer.training.beside import Beside


def test_work_goes_on_beside_and_is_told_of_at_the_next_look() -> None:
    may_end, told = threading.Event(), []
    with Beside() as beside:
        beside.do(lambda: may_end.wait(30.0), afterwards=lambda: told.append("done"))
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
        beside.do(lambda: order.append("first"), afterwards=lambda: order.append("told of it"))
        beside.do(lambda: order.append("second"), afterwards=lambda: None)
    assert order == ["first", "told of it", "second"]


def full() -> None:
    raise OSError(28, "No space left on device")


def test_an_error_is_raised_where_one_looks_and_nobody_is_told_of_success() -> None:
    told: list[str] = []
    beside = Beside()
    beside.do(full, afterwards=lambda: told.append("done"))
    with pytest.raises(OSError, match="No space"):
        beside.settle()
    assert told == []


def test_leaving_raises_what_went_wrong_but_not_in_place_of_what_went_wrong_before() -> None:
    with pytest.raises(OSError, match="No space"), Beside() as beside:
        beside.do(full, afterwards=lambda: None)
    with pytest.raises(ValueError, match="diverged"), Beside() as beside:
        diverge(beside)


def diverge(beside: Beside) -> None:
    beside.do(full, afterwards=lambda: None)
    raise ValueError("diverged")
