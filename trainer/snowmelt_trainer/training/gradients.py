"""Gradients in BFloat16, which the workers add up while the backward pass goes on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snowmelt_trainer.training.distributed import World


class NarrowGradients:
    """Of some parameters, in one step.

    Each goes on its way to the other workers as it comes, as it was computed: DistributedDataParallel would have it
    widened, copied into a bucket, and narrowed for the way.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: dict[nn.Parameter, Tensor] = {}
        self._coming: list[tuple[nn.Parameter, Tensor, dist.Work]] = []

    def add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Of one use of the parameter, in BFloat16. It is not to be used any more: it may become the sum over the
        workers. They add theirs in the same order, which is that of the backward pass."""
        if self._world.size == 1:
            self._hold(parameter, gradient)
            return
        gradient = as_it_lies(gradient, parameter, torch.bfloat16)
        self._coming.append((parameter, gradient, self._world.begin_sum(gradient)))

    def take(self) -> dict[nn.Parameter, Tensor]:
        """After the backward pass: the sums over all uses and workers. Nothing is held any more."""
        for parameter, gradient, work in self._coming:
            work.wait()
            self._hold(parameter, gradient)
        self._coming.clear()
        taken, self._held = self._held, {}
        return taken

    def _hold(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        before = self._held.get(parameter)
        self._held[parameter] = gradient if before is None else before + gradient


def as_it_lies(gradient: Tensor, parameter: nn.Parameter, dtype: torch.dtype) -> Tensor:
    """The gradient in that type and in its parameter's strides; itself where it is."""
    if gradient.dtype is dtype and gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=dtype).copy_(gradient)
