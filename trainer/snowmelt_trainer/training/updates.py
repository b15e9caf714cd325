"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

MAX_GRADIENT_NORM = 5.0
"""Of all gradients from the network's output up to a part of it, that part's included."""
AT_ONCE = 16 << 20
"""Bytes of gradients in one part. With less the optimizer's calls cost more than they save."""


class Updates:
    """Updates parameters in parts of about AT_ONCE bytes, from the network's output to its input.

    Where one worker trains, it does so within the backward pass, as soon as a part has its gradients, and lets these go
    (as Lv et al. 2023, arXiv 2306.09782, do with each parameter): the gradients of all parameters never lie in memory
    together, and the average of the weights takes their place. A parameter gets its gradient when all that used it has
    run backwards, so nothing needs its old value any more. Several workers first exchange their gradients, which
    DistributedDataParallel keeps in buffers of its own. The weights come out the same, bit for bit.

    The norm of all gradients is known too late to scale them by it, as `torch.nn.utils.clip_grad_norm_` does. So each
    part is scaled by the norm of those up to it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        *,
        within_backward: bool,
        at_once: int = AT_ONCE,
    ) -> None:
        """`parameters` are those of the optimizer, in the network's order."""
        self._optimizer, self._within = optimizer, within_backward
        self._parts = _parts(parameters[::-1], at_once)
        self._part_of = {parameter: index for index, part in enumerate(self._parts) for parameter in part}
        self._begin()

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`, a scalar; afterwards no parameter has a gradient."""
        self._begin()
        with self._hooked():
            torch.autograd.backward(loss)
        for parameter in self._part_of:
            self._hold(parameter)
        while self._next < len(self._parts):
            self._update()

    def _begin(self) -> None:
        self._next = 0
        """The part whose turn it is."""
        self._norm: Tensor | None = None
        """Of the gradients of the parts before it."""
        self._held: dict[nn.Parameter, Tensor] = {}
        """Gradients that wait for their part's turn; not with their parameters, or the optimizer would take them."""
        self._missing = [len(part) for part in self._parts]

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        hooked = self._part_of if self._within else ()
        handles = [parameter.register_post_accumulate_grad_hook(self._take) for parameter in hooked]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, parameter: nn.Parameter) -> None:
        self._hold(parameter)
        while self._next < len(self._parts) and not self._missing[self._next]:
            self._update()

    def _hold(self, parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            self._held[parameter], parameter.grad = parameter.grad, None
            self._missing[self._part_of[parameter]] -= 1

    def _update(self) -> None:
        part = [parameter for parameter in self._parts[self._next] if parameter in self._held]
        self._next += 1
        for parameter in part:
            parameter.grad = self._held.pop(parameter)
        self._limit(part)
        self._optimizer.step()
        for parameter in part:
            parameter.grad = None

    def _limit(self, part: Sequence[nn.Parameter]) -> None:
        """Where looking at the norm costs no wait for a device, ordinary gradients are spared the multiplication by
        one."""
        if not part:
            return
        norm = get_total_norm([parameter.grad for parameter in part if parameter.grad is not None])
        self._norm = norm if self._norm is None else torch.hypot(self._norm, norm)
        if norm.device.type != "cpu" or self._norm > MAX_GRADIENT_NORM:
            clip_grads_with_norm_(part, MAX_GRADIENT_NORM, self._norm)


def _parts(parameters: Sequence[nn.Parameter], at_once: int) -> list[list[nn.Parameter]]:
    """In the same order; each but the last has at least `at_once` bytes, and fewer without its last parameter."""
    parts: list[list[nn.Parameter]] = [[]]
    size = 0
    for parameter in parameters:
        if size >= at_once:
            parts.append([])
            size = 0
        parts[-1].append(parameter)
        size += parameter.nbytes
    return parts
