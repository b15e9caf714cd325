"""Exact evaluation: every sample once, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.precision import autocast, place


@torch.inference_mode()
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
    model.eval()
    sums = torch.zeros(2 * classes + 1, dtype=torch.float64, device=world.device)
    correct, total, loss = sums[:classes], sums[classes:-1], sums[-1:]
    for images, targets, _ in batches:
        labels = targets.to(world.device, non_blocking=True)
        with autocast(precision, world.device):
            logits = model(place(images, world.device, preprocessing))
        loss += functional.cross_entropy(logits.float(), labels, reduction="none").double().sum()
        total += torch.bincount(labels, minlength=classes)
        correct += torch.bincount(labels[logits.argmax(dim=1) == labels], minlength=classes)
    values = world.sum(sums).tolist()
    if not torch.isfinite(sums[-1]).item():
        raise RunError(Reason.DIVERGED, "the evaluation's loss is not finite: lower spec.optimization.learningRate")
    return Counts(
        correct=tuple(int(value) for value in values[:classes]),
        total=tuple(int(value) for value in values[classes:-1]),
        loss_sum=values[-1],
    )
