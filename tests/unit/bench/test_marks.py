"""Marks, and the time it takes to reach them."""

from __future__ import annotations

import math

import pytest

from bench.report.marks import Marks, marks_of, processors, standard_error, time_to, times_to
from tests.unit.bench.runs import look, run


def test_the_time_to_a_mark_is_that_of_the_first_look_at_or_above_it() -> None:
    looks = (look(1.0, 0.5), look(2.0, 0.9), look(3.0, 0.8), look(4.0, 0.95))
    assert time_to(0.9, looks) == 2.0
    assert time_to(0.91, looks) == 4.0


def test_a_mark_that_was_never_reached_takes_for_ever() -> None:
    assert time_to(0.9, (look(1.0, 0.5),)) == math.inf


def test_the_clock_of_the_processors_can_be_asked_instead() -> None:
    assert time_to(0.9, (look(2.0, 0.9, cpu=3.5),), processors) == 3.5


def test_the_marks_follow_from_the_median_of_full_fine_tuning() -> None:
    marks = marks_of([run(seed=0, validation=0.90), run(seed=1, validation=0.94), run(seed=2, validation=0.95)])
    assert marks.full == 0.94
    assert marks.first == pytest.approx(0.92)
    assert marks.second == pytest.approx(0.94 - math.sqrt(0.94 * 0.06 / 1000))


def test_the_standard_error_shrinks_with_the_root_of_the_number_of_images() -> None:
    assert standard_error(0.9, 400) == pytest.approx(2 * standard_error(0.9, 1600))


@pytest.mark.parametrize(
    ("seconds", "middle", "reached"),
    [
        ((5.0, 7.0, 6.0), 6.0, 3),
        ((5.0, None, 6.0), 6.0, 2),
        ((5.0, None, None), math.inf, 1),
        ((4.0, None), math.inf, 1),
    ],
)
def test_the_median_counts_never_as_longer_than_anything(
    seconds: tuple[float | None, ...], middle: float, reached: int
) -> None:
    runs = [run(seed=i, looks=(look(one, 0.9),) if one else ()) for i, one in enumerate(seconds)]
    times = times_to(0.9, runs)
    assert (times.middle, times.reached) == (middle, reached)


def test_the_second_mark_lies_above_the_first_where_enough_images_were_measured() -> None:
    assert Marks(0.94, 0.0075).second > Marks(0.94, 0.0075).first
