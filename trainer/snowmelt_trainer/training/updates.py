"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from snowmelt_trainer.contract.optimization import Precision

MAX_GRADIENT_NORM = 5.0
"""Gradients are scaled down to this norm of all of them. A ResNet-18 never reaches it, a ResNet-50 in half of the steps
of a fit (docs/design/20261126-around-a-step.md)."""
LARGE = 1 << 20
"""Bytes of a parameter whose gradient is worth holding in BFloat16."""
AT_ONCE = 16 << 20
"""Bytes of gradients that are made Float32 again at once. With less the optimizer's calls cost more than they save."""

Held = dict[nn.Parameter, Tensor]
"""Gradients in BFloat16."""


class Updates:
    """Updates the parameters of one optimizer.

    In BFloat16 the gradients of weights were computed in it, and widened for the optimizer. So as each one comes, it is
    narrowed again, which loses nothing, until the norm of all is known; then they are widened in parts. What that
    leaves free takes the average of the weights. Several workers have no use for it: DistributedDataParallel keeps all
    gradients in buffers of its own.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, narrow: bool, large: int = LARGE) -> None:
        self._optimizer = optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._narrowed = [one for one in parameters if narrow and one.nbytes >= large]
        chosen = set(self._narrowed)
        self._others = [one for one in parameters if one not in chosen]
        self._parts = [self._others, *_parts(self._narrowed)]
        """In the order of their updates: the optimizer takes every gradient that lies with its parameter."""

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, a scalar; afterwards no parameter has a gradient."""
        held: Held = {}
        with _narrowed(self._narrowed, held):
            torch.autograd.backward(loss)
        norm = _norm(list(held.values()), [one.grad for one in self._others if one.grad is not None])
        for part in self._parts:
            for parameter in part:
                if parameter in held:
                    parameter.grad = held.pop(parameter).to(parameter.dtype)
            self._update(part, norm)

    def _update(self, part: Sequence[nn.Parameter], norm: Tensor) -> None:
        """Where looking at the norm costs no wait for a device, ordinary gradients are spared the multiplication by
        one."""
        if norm.device.type != "cpu" or norm > MAX_GRADIENT_NORM:
            clip_grads_with_norm_(part, MAX_GRADIENT_NORM, norm)
        self._optimizer.step()
        for parameter in part:
            parameter.grad = None


def updates_of(optimizer: torch.optim.Optimizer, precision: Precision, workers: int) -> Updates:
    """Those of one of so many workers."""
    return Updates(optimizer, narrow=precision is Precision.BFLOAT16 and workers == 1)


@contextmanager
def _narrowed(parameters: Sequence[nn.Parameter], held: Held) -> Iterator[None]:
    """Within it, the gradients of these parameters go to `held`."""

    def hold(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            held[parameter], parameter.grad = parameter.grad.to(torch.bfloat16), None

    handles = [
        parameter.register_post_accumulate_grad_hook(hold)  # type: ignore[no-untyped-call]
        for parameter in parameters
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norm(*gradients: list[Tensor]) -> Tensor:
    """Of all of them together, in Float32; each list is of one type."""
    norms = [norm for some in gradients if some for norm in torch._foreach_norm(some, 2, torch.float32)]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _parts(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """In the same order; each but the last has at least AT_ONCE bytes, and fewer without its last parameter."""
    part: list[nn.Parameter] = []
    for parameter in parameters:
        part.append(parameter)
        if sum(one.nbytes for one in part) >= AT_ONCE:
            yield part
            part = []
    if part:
        yield part
