"""Figures of merit, computed from exact counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snowmelt_trainer.contract.unfreezing import Metric


@dataclass(frozen=True)
class Counts:
    """What one pass over a data set found, over all workers: each sample counted once.

    `correct[c]` and `total[c]` count the samples of class c; `loss_sum` is the sum of the samples' cross-entropies.
    """

    correct: tuple[int, ...]
    total: tuple[int, ...]
    loss_sum: float

    @property
    def values(self) -> dict[Metric, float]:
        """accuracy; balancedAccuracy (mean recall of the classes that occur, Brodersen et al. 2010); loss (mean
        cross-entropy)."""
        samples = sum(self.total)
        recalls = [right / of for right, of in zip(self.correct, self.total, strict=True) if of]
        return {
            Metric.ACCURACY: sum(self.correct) / samples,
            Metric.BALANCED_ACCURACY: math.fsum(recalls) / len(recalls),
            Metric.LOSS: self.loss_sum / samples,
        }


def improves(metric: Metric, value: float, on: float | None, min_delta: float = 0.0) -> bool:
    """Whether `value` is better than `on` by more than `min_delta`. Anything improves on nothing; NaN improves on
    nothing at all."""
    if math.isnan(value):
        return False
    if on is None:
        return True
    gain = on - value if metric is Metric.LOSS else value - on
    return gain > min_delta


def best_of(metric: Metric, several: Sequence[Mapping[Metric, float]]) -> int:
    """Which of several, of which there is one at least, outranks those before it and is outranked by none after it.

    >>> best_of(Metric.LOSS, [{Metric.LOSS: 0.5}, {Metric.LOSS: 0.4}, {Metric.LOSS: 0.4}])
    1
    """
    best = 0
    for index, values in enumerate(several):
        if outranks(metric, values, several[best]):
            best = index
    return best


def outranks(metric: Metric, values: Mapping[Metric, float], best: Mapping[Metric, float]) -> bool:
    """Whether these values are better than the best so far; where the metric is the same, the lower loss is."""
    deciding = Metric.LOSS if values[metric] == best[metric] else metric
    return improves(deciding, values[deciding], best[deciding])
