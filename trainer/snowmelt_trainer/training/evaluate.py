"""Exact evaluation: every sample once, whatever the number of workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.precision import autocast, place


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    classes: int,
    world: World,
    precision: Precision,
    preprocessing: Preprocessing,
) -> Counts:
    """Counts over all workers' batches: each worker gives its own, unpadded share of the samples, which may be empty.

    The model is left in eval mode. Workers need not agree on the number of batches: they meet once, at the end.

    Raises:
        RunError: Diverged on every worker, when the loss is not finite.
    """
    (counts,) = compare(
        nn.Identity(),
        [model],
        batches,
        classes=classes,
        world=world,
        precision=precision,
        preprocessing=preprocessing,
    )
    return counts


@torch.inference_mode()
def compare(
    before: nn.Module,
    heads: Sequence[nn.Module],
    batches: Iterable[Batch],
    *,
    classes: int,
    world: World,
    precision: Precision,
    preprocessing: Preprocessing,
) -> tuple[Counts, ...]:
    """As `evaluate`, of several heads on what the layers before them give in one pass."""
    for module in (before, *heads):
        module.eval()
    found = [_Sums(classes, world) for _ in heads]
    for images, targets, _ in batches:
        labels = targets.to(world.device, non_blocking=True)
        with autocast(precision, world.device):
            features = before(place(images, world.device, preprocessing))
            logits = [head(features) for head in heads]
        for sums, its in zip(found, logits, strict=True):
            sums.add(its, labels)
    return tuple(sums.counts() for sums in found)


class _Sums:
    """Of one head: right answers of each class, images of each class, the sum of the losses; in one tensor, so that the
    workers meet once."""

    def __init__(self, classes: int, world: World) -> None:
        self._classes, self._world = classes, world
        self._sums = torch.zeros(2 * classes + 1, dtype=torch.float64, device=world.device)
        self._correct, self._total, self._loss = self._sums[:classes], self._sums[classes:-1], self._sums[-1:]

    def add(self, logits: Tensor, labels: Tensor) -> None:
        self._loss += functional.cross_entropy(logits.float(), labels, reduction="none").double().sum()
        self._total += torch.bincount(labels, minlength=self._classes)
        self._correct += torch.bincount(labels[logits.argmax(dim=1) == labels], minlength=self._classes)

    def counts(self) -> Counts:
        """Of all workers. Raises as `evaluate`."""
        values, classes = self._world.sum(self._sums).tolist(), self._classes
        if not math.isfinite(values[-1]):
            raise RunError(Reason.DIVERGED, "the evaluation's loss is not finite: lower spec.optimization.learningRate")
        return Counts(
            correct=tuple(int(value) for value in values[:classes]),
            total=tuple(int(value) for value in values[classes:-1]),
            loss_sum=values[-1],
        )
