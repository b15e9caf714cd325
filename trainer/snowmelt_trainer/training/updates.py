"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.distributed import World, replicated
from snowmelt_trainer.training.gradients import NarrowGradients, as_it_lies
from snowmelt_trainer.training.lent_weights import LentWeights
from snowmelt_trainer.training.optimizers import first_state
from snowmelt_trainer.training.precision import LARGE

MAX_GRADIENT_NORM = 5.0
"""Gradients are scaled down to this norm of all of them. A ResNet-18 never reaches it, a ResNet-50 in half of the steps
of a fit (docs/design/20261126-around-a-step.md)."""
AT_ONCE = 16 << 20
"""Bytes of parameters that are updated at once. With less the optimizer's calls cost more than they save."""


class Updates:
    """Updates the parameters of one optimizer.

    The arithmetic is torch's. In BFloat16 little is held of large parameters, which leaves room for the average of the
    weights:

    - Weights in BFloat16 are lent to the layers that use them, on processors.
    - Gradients were computed in it, and widened for the optimizer. So as each one comes, it is narrowed again, which
      loses nothing, until the norm of all is known; then they are widened in parts. (Several workers with accelerators
      hold them as DistributedDataParallel does, in buffers of its own.)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        network: nn.Module,
        average: AveragedWeights,
        precision: Precision,
        world: World,
    ) -> None:
        """`network` is what the optimizer's parameters are trained in, and `average` the average of its weights."""
        self.network = network
        """What is to run forward."""
        self._optimizer, self._average, self._world = optimizer, average, world
        narrow = precision is Precision.BFLOAT16
        in_parts = narrow or average.narrow
        self._large = [one for one in _parameters(optimizer) if in_parts and one.nbytes >= LARGE]
        chosen = set(self._large)
        self._others = [one for one in _parameters(optimizer) if one not in chosen]
        self._parts = [self._others, *_parts(self._large)]
        """In the order of their updates: the optimizer takes every gradient that lies with its parameter."""
        lends = lends_weights(optimizer, precision, world)
        self._in_buckets = world.size > 1 and not lends
        """Whether DistributedDataParallel exchanges the gradients."""
        self._narrowed = self._large if narrow and not self._in_buckets else []
        """Whose gradients are."""
        self._gradients = NarrowGradients(world)
        self._lent = LentWeights(network, self._large, self._gradients) if lends else None
        self._begun = False

    def forward(self) -> AbstractContextManager[None]:
        """Within it, the network runs forward for the next step."""
        self._begin()
        return nullcontext() if self._lent is None else self._lent.forward()

    def _begin(self) -> None:
        """Before the first step: its activations are not to take the place of what stays."""
        if self._begun:
            return
        self._begun = True
        for parameter in _parameters(self._optimizer):
            if parameter not in self._optimizer.state:
                self._optimizer.state[parameter] = first_state(self._optimizer, parameter)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the sum of all workers' `loss`, scalars that were computed within `forward`;
        afterwards no parameter has a gradient."""
        with _narrowed(self._narrowed, self._gradients):
            torch.autograd.backward(loss * self._world.size if self._in_buckets else loss)
        held = self._over_all_workers()
        norm = _norm(list(held.values()), [one.grad for one in self._others if one.grad is not None])
        for part in self._parts:
            for parameter in part:
                if parameter in held:
                    parameter.grad = as_it_lies(held.pop(parameter), parameter, parameter.dtype)
            self._update(part, norm)

    def _over_all_workers(self) -> dict[nn.Parameter, Tensor]:
        """After the backward pass: the gradients of large parameters, which do not lie with these any more; those of
        the others do."""
        held = self._gradients.take()
        if not self._in_buckets:
            self._world.sum_all([one.grad for one in self._others if one.grad is not None])
        for parameter in self._large:
            if parameter.grad is not None:
                held[parameter], parameter.grad = parameter.grad, None
        return held

    def _update(self, part: Sequence[nn.Parameter], norm: Tensor) -> None:
        """Where looking at the norm costs no wait for a device, ordinary gradients are spared the multiplication by
        one."""
        if norm.device.type != "cpu" or norm > MAX_GRADIENT_NORM:
            clip_grads_with_norm_(part, MAX_GRADIENT_NORM, norm)
        with self._average.follow(part):
            self._optimizer.step()
        for parameter in part:
            parameter.grad = None


def updates_of(
    optimizer: torch.optim.Optimizer, suffix: nn.Module, average: AveragedWeights, precision: Precision, world: World
) -> Updates:
    """Those of one of the workers, of the layers that are trained."""
    network = suffix
    if lends_weights(optimizer, precision, world):
        world.agree(suffix.state_dict().values())  # as DistributedDataParallel does when it is made
    else:
        network = replicated(suffix, world, precision)
    return Updates(optimizer, network, average, precision, world)


def lends_weights(optimizer: torch.optim.Optimizer, precision: Precision, world: World) -> bool:
    """Whether layers are lent weights in BFloat16. On processors alone: what an accelerator computes with them is over
    sooner than Python has given it to do."""
    if precision is not Precision.BFLOAT16 or world.device.type != "cpu":
        return False
    return any(one.nbytes >= LARGE for one in _parameters(optimizer))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def _narrowed(parameters: Sequence[nn.Parameter], narrow: NarrowGradients) -> Iterator[None]:
    """Within it, the gradients of these parameters go to `narrow`."""

    def hold(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            gradient, parameter.grad = parameter.grad, None
            narrow.add(parameter, gradient.to(torch.bfloat16))

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
    norms = [norm for some in gradients if some for norm in _norms(some)]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _norms(gradients: list[Tensor]) -> Iterable[Tensor]:
    """Of each. On a processor `_foreach_norm` would widen a copy of each first, several of which stay in the way."""
    if gradients[0].device.type == "cpu" and gradients[0].dtype is torch.bfloat16:
        return [torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]
    return torch._foreach_norm(gradients, 2, torch.float32)


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
