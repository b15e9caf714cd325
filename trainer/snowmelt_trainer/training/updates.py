"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from snowmelt_trainer.training.optimizers import limit_gradients

AT_ONCE = 16 << 20
"""Bytes of gradients that wait for the optimizer. With fewer its calls cost more than they save."""


class Updates:
    """Updates the parameters of one optimizer.

    Where one worker trains, it does so within the backward pass, as soon as AT_ONCE bytes of gradients are there, and
    lets these go (as in Lv et al. 2023, arXiv 2306.09782): the gradients of all parameters never lie in memory
    together, whose place the average of the weights takes. A parameter gets its gradient when all that used it has run
    backwards, so nothing needs its old value any more. Several workers first exchange their gradients, which
    DistributedDataParallel keeps in buffers of its own.

    Either way the weights are the same, bit for bit: gradients are limited one by one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, at_once: int | None = AT_ONCE) -> None:
        """With `at_once` None, the optimizer makes its step when the backward pass is over."""
        self.optimizer, self._at_once = optimizer, at_once
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._waiting = 0

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, a scalar; afterwards no parameter has a gradient."""
        with self._within_backward():
            torch.autograd.backward(loss)
        self._apply()

    @contextmanager
    def _within_backward(self) -> Iterator[None]:
        hooked = () if self._at_once is None else self._parameters
        handles = [parameter.register_post_accumulate_grad_hook(self._take) for parameter in hooked]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or self._at_once is None:
            return
        self._waiting += gradient.nbytes
        if self._waiting >= self._at_once:
            self._apply()

    def _apply(self) -> None:
        self._waiting = 0
        limit_gradients(self._parameters)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def updates_of(optimizer: torch.optim.Optimizer, workers: int) -> Updates:
    """Those of one of so many workers."""
    return Updates(optimizer, at_once=AT_ONCE if workers == 1 else None)
