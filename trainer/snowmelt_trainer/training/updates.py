"""The backward pass and what follows it: gradients are limited, and the optimizer makes its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.distributed import World, replicated
from snowmelt_trainer.training.gradients import NarrowGradients, as_it_lies
from snowmelt_trainer.training.lent_weights import LentWeights
from snowmelt_trainer.training.optimizers import first_state

MAX_GRADIENT_NORM = 5.0
"""Gradients are scaled down to this norm of all of them. A ResNet-18 never reaches it, a ResNet-50 in half of the steps
of a fit (docs/design/20261126-around-a-step.md)."""
LARGE = 1 << 20
"""Bytes of a parameter whose gradient and momentum are worth holding in BFloat16."""
AT_ONCE = 16 << 20
"""Bytes of gradients that are made Float32 again at once. With less the optimizer's calls cost more than they save."""
MOMENTA = ("exp_avg", "momentum_buffer")
"""What torch's AdamW and SGD call the mean of the last steps' gradients. (AdamW's mean of squares changes by a
thousandth in a step, which BFloat16 could not hold.)"""


class Updates:
    """Updates the parameters of one optimizer.

    In BFloat16 little is held of large parameters, which leaves room for the average of the weights:

    - Weights in BFloat16 are lent to the layers that use them, on processors.
    - Gradients were computed in it, and widened for the optimizer. So as each one comes, it is narrowed again, which
      loses nothing, until the norm of all is known; then they are widened in parts. (Several workers with accelerators
      hold them as DistributedDataParallel does, in buffers of its own.)
    - Momenta lie in it between two steps. They are rounded by 0.4% at most, of which some steps later nothing is left;
      gradients of two batches differ by many times that. (Of several workers, each would spend the time that it takes,
      while their steps get shorter.)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        large: Sequence[nn.Parameter],
        network: nn.Module,
        world: World,
        *,
        lends: bool,
    ) -> None:
        """Of the `large` parameters little is held. `network` has the optimizer's parameters; whether it `lends` their
        weights in BFloat16 to its layers."""
        self._optimizer, self._large, self._world, self.network = optimizer, large, world, network
        """The network is what is to run forward."""
        chosen = set(large)
        self._others = [one for one in _parameters(optimizer) if one not in chosen]
        self._parts = [self._others, *_parts(large)]
        """In the order of their updates: the optimizer takes every gradient that lies with its parameter."""
        self._with_narrow_momenta = set(large) if world.size == 1 else set()
        self._gradients = NarrowGradients(world)
        self._lent = LentWeights(network, large, self._gradients) if lends else None
        self._in_buckets = world.size > 1 and not lends
        """Whether DistributedDataParallel exchanges the gradients."""
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
        for state, name, momentum in self._narrow_momenta(self._large):
            state[name] = momentum.bfloat16()

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the sum of all workers' `loss`, scalars that were computed within `forward`;
        afterwards no parameter has a gradient."""
        with _narrowed([] if self._in_buckets else self._large, self._gradients):
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
        if not self._in_buckets:
            self._world.sum_all([one.grad for one in self._others if one.grad is not None])
            return self._gradients.take()
        held = {one: one.grad for one in self._large if one.grad is not None}
        for parameter in held:
            parameter.grad = None
        return held

    def _update(self, part: Sequence[nn.Parameter], norm: Tensor) -> None:
        """Where looking at the norm costs no wait for a device, ordinary gradients are spared the multiplication by
        one."""
        if norm.device.type != "cpu" or norm > MAX_GRADIENT_NORM:
            clip_grads_with_norm_(part, MAX_GRADIENT_NORM, norm)
        with self._widened(part):
            self._optimizer.step()
        for parameter in part:
            parameter.grad = None

    @contextmanager
    def _widened(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """Within it, all their momenta are Float32; afterwards the narrow ones lie where they lay before."""
        narrow = list(self._narrow_momenta(parameters))
        for state, name, momentum in narrow:
            state[name] = momentum.float()
        yield
        for state, name, momentum in narrow:
            state[name] = momentum.copy_(state[name])

    def _narrow_momenta(self, parameters: Sequence[nn.Parameter]) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
        """Those to be held so, each with where the optimizer looks for it."""
        for parameter in parameters:
            if parameter in self._with_narrow_momenta:
                state = self._optimizer.state[parameter]
                yield from ((state, name, state[name]) for name in MOMENTA if name in state)


def updates_of(optimizer: torch.optim.Optimizer, network: nn.Module, precision: Precision, world: World) -> Updates:
    """Those of one of the workers.

    Weights are lent on processors alone: what an accelerator computes with them in the meantime is over sooner than
    Python has given it to do.
    """
    large = [one for one in _parameters(optimizer) if precision is Precision.BFLOAT16 and one.nbytes >= LARGE]
    lends = bool(large) and world.device.type == "cpu"
    if lends:
        world.agree(network.state_dict().values())  # as DistributedDataParallel does when it is made
    else:
        network = replicated(network, world, precision)
    return Updates(optimizer, large, network, world, lends=lends)


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
