"""Coordinates in which the images of one class vary alike in all directions (within-class covariance normalisation,
Hatch et al. 2006).

A linear head that is penalised there may lean on directions that tell classes apart and hardly vary within one, and
pays for those in which each class varies by itself. Of few images the covariance is known badly, above all where it is
small: so it is mixed with a sphere of the same mean variance (Friedman 1989, "Regularized Discriminant Analysis";
Ledoit and Wolf 2004). docs/design/20261128-whitened-head.md has what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.standardised import ROWS, Blocks


class Coordinates:
    """Those of standardised features themselves."""

    def plain(self, weights: Tensor) -> Tensor:
        """Weights (classes, d) of features in these coordinates, as those of standardised ones."""
        return weights

    def of_plain(self, weights: Tensor) -> Tensor:
        """The other way."""
        return weights

    def gradient(self, of_plain: Tensor) -> Tensor:
        """By the weights here, from that by the plain ones."""
        return of_plain


@dataclass(frozen=True)
class Whitening(Coordinates):
    """z = `into` x of standardised features x (d,); `back` is the inverse. Both (d, d), lower triangular."""

    into: Tensor
    back: Tensor

    def plain(self, weights: Tensor) -> Tensor:
        return weights @ self.into.to(weights)

    def of_plain(self, weights: Tensor) -> Tensor:
        return weights @ self.back.to(weights)

    def gradient(self, of_plain: Tensor) -> Tensor:
        return of_plain @ self.into.t()


def within_class(blocks: Blocks, width: int, classes: int, world: World) -> Tensor:
    """The covariance (width, width) of all workers' features, each about the mean of its class, divided by the mean
    variance."""
    sums = torch.zeros(classes, width, device=world.device)
    counts = torch.zeros(classes, device=world.device)
    for features, labels in blocks():
        sums.index_add_(0, labels, features)
        counts += torch.bincount(labels, minlength=classes)
    means = world.sum(sums) / world.sum(counts).clamp_min(1).unsqueeze(1)
    scatter = torch.zeros(width, width, device=world.device)
    for features, labels in blocks():
        for rows, theirs in zip(torch.split(features, ROWS), torch.split(labels, ROWS), strict=True):
            apart = rows - means[theirs]
            scatter.addmm_(apart.t(), apart)
    scatter = world.sum(scatter)
    return scatter / scatter.diagonal().mean().clamp_min(torch.finfo(scatter.dtype).tiny)


def whitening(covariance: Tensor, shrinkage: float) -> Whitening:
    """By a covariance of mean variance 1, of which a share of `shrinkage`, above 0 and at most 1, gives way to the
    sphere. What is not finite stays so."""
    mixed = (1 - shrinkage) * covariance
    mixed.diagonal().add_(shrinkage)
    back, failed = torch.linalg.cholesky_ex(mixed)
    if failed.any():  # of a sum of a sphere and squares: something was not finite
        back = torch.full_like(mixed, torch.nan)
    unit = torch.eye(len(mixed), dtype=mixed.dtype, device=mixed.device)
    return Whitening(torch.linalg.solve_triangular(back, unit, upper=False), back)
