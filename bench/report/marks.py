"""Marks, and how long it takes to reach them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.report.results import Look, Run

TWO_POINTS = 0.02
CONFIDENCE = 1.96
"""Standard errors to either side of a 95% confidence interval."""

Clock = Callable[[Look], float]


@dataclass(frozen=True)
class Marks:
    """Validation accuracies to be reached on one subject."""

    full: float
    """What full fine-tuning ends at: the median over its seeds."""
    error: float
    """The standard error of that accuracy on so many validation images."""

    @property
    def first(self) -> float:
        return self.full - TWO_POINTS

    @property
    def second(self) -> float:
        return self.full - self.error


def standard_error(accuracy: float, images: int) -> float:
    """Of a share measured on so many images (binomial)."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def marks_of(reference: Sequence[Run]) -> Marks:
    """From the runs of full fine-tuning, of which there is at least one."""
    full = median(run.validation for run in reference)
    return Marks(full, standard_error(full, reference[0].validation_images))


def wall(look: Look) -> float:
    return look.seconds


def processors(look: Look) -> float:
    return look.cpu_seconds


def time_to(mark: float, looks: Sequence[Look], clock: Clock = wall) -> float:
    """Seconds until the first look at or above the mark; infinite when there is none."""
    return next((clock(look) for look in looks if look.accuracy >= mark), math.inf)


@dataclass(frozen=True)
class Times:
    """Seconds to a mark over the seeds; infinite where it was not reached."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median; infinite when more than half never reached the mark."""
        return _median(self.values)

    @property
    def reached(self) -> int:
        return sum(map(math.isfinite, self.values))

    @property
    def often(self) -> float:
        """In which share of the seeds it was reached."""
        return self.reached / len(self.values) if self.values else 0.0


def times_to(mark: float, runs: Sequence[Run], clock: Clock = wall) -> Times:
    return Times(tuple(time_to(mark, run.looks, clock) for run in runs))


def _median(values: Sequence[float]) -> float:
    """With an even number, infinite as soon as one of the two in the middle is."""
    return median(values) if values else math.inf


def confidence(accuracy: float, images: int) -> float:
    """Half the width of the 95% confidence interval of the difference of two accuracies such as this one, measured on
    as many images each."""
    return CONFIDENCE * math.sqrt(2) * standard_error(accuracy, images)
