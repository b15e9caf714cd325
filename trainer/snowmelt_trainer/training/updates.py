"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from snowmelt_trainer.contract.optimization import Precision

MAX_GRADIENT_NORM = 5.0
"""Gradients are scaled down to this norm of all of them."""
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

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, a scalar; afterwards no parameter has a gradient."""
        held: Held = {}
        with _narrowed(self._narrowed, held):
            torch.autograd.backward(loss)
        norm = _norm([*held.values(), *_gradients(self._others)])
        self._update(self._others, norm)
        for part in _parts(list(held), AT_ONCE):
            for parameter in part:
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

    def hold(parameter: Tensor) -> None:
        if isinstance(parameter, nn.Parameter) and parameter.grad is not None:
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


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Of all of them together, in Float32."""
    norms = [norm for same in _by_type(gradients) for norm in torch._foreach_norm(same, 2, torch.float32)]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[one for one in tensors if one.dtype == dtype] for dtype in dict.fromkeys(one.dtype for one in tensors)]


def _parts(parameters: Sequence[nn.Parameter], at_once: int) -> Iterator[list[nn.Parameter]]:
    """In the same order; each but the last has at least `at_once` bytes, and fewer without its last parameter."""
    part: list[nn.Parameter] = []
    for parameter in parameters:
        part.append(parameter)
        if sum(one.nbytes for one in part) >= at_once:
            yield part
            part = []
    if part:
        yield part
