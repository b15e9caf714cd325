"""The average of the trained weights, which is what is evaluated, kept and delivered.

Steps large enough to learn shake the weights about a minimum; their average lies nearer to it (Polyak and Juditsky
1992; for fine-tuned networks Izmailov et al. 2018, arXiv 1803.05407). So an epoch's evaluation says what the stage has
learned at any moment of its schedule, and a stage that opens new layers does not seem worse than it is while their rate
is high. docs/design/20261125-after-the-head.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snowmelt_trainer.tensors import flat
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import LARGE

MEMORY = 0.5
"""Of an epoch's steps, how many the average is over. With all of them an epoch's evaluation lags behind what has been
learned; docs/design/20261127-before-everything.md has what was measured."""
MOST = 0.9998
"""Longest memory: some 5,000 steps, as is usual for much longer runs."""
MANY = 128 << 20
"""Bytes of trained parameters whose average is worth the time of a narrow one: a ViT-B/16 has 343 million, a ResNet-50
94 million."""
AT_ONCE = 1 << 19
"""Numbers that are converted at once."""


def chosen_decay(given: float | None, steps_per_epoch: int) -> float:
    """How much of the average a step leaves as it was: what the spec says, or else a memory of half an epoch, so that
    it does not depend on the batch.

    >>> chosen_decay(None, 20)
    0.9
    """
    if given is not None:
        return given
    return min(MOST, 1 - 1 / max(1.0, MEMORY * steps_per_epoch))


def better_narrow(parameters: Iterable[nn.Parameter], world: World) -> bool:
    """Whether the average of these is to be narrow, which is a matter of processors: an accelerator's step waits for
    Python. Of several workers each would spend the time that it takes, while their steps get shorter."""
    return world.size == 1 and world.device.type == "cpu" and sum(one.nbytes for one in parameters) >= MANY


def match_statistics(model: nn.Module, decay: float) -> None:
    """Gives BatchNorm's running statistics the memory of the weights' average, so that statistics and weights which are
    evaluated together are of the same steps. Each network brings another memory: torchvision's ResNets 10 steps, its
    MobileNets 100. Nothing is changed where weights are not averaged.
    """
    if decay > 0:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1 - decay


class AveragedWeights:
    """An exponential moving average of a stage's trained parameters; buffers are not averaged.

    It begins with the weights that the stage begins with, which are the best so far, and moves away from them as steps
    are made. With no decay it is the weights themselves, and costs nothing.

    A `narrow` one holds of large parameters in BFloat16 how far the average is from the weights: some thousandths of
    these, rounded by 0.4% at most, which fades with the average's memory. That is half of the bytes, for a few more
    milliseconds a step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, *, narrow: bool = False) -> None:
        self.decay = decay
        self._trained = dict(parameters) if decay > 0 else {}
        self._names = {one: name for name, one in self._trained.items()}
        large = [one for one in self._trained.values() if narrow and one.nbytes >= LARGE]
        self._ahead = {one: torch.zeros_like(one, dtype=torch.bfloat16) for one in large}
        """How far the average before the last step is from the weights after it."""
        self._other = {name: one.detach().clone() for name, one in self._trained.items() if one not in self._ahead}
        """The averages; within `in_place`, the weights of the last step, and of all parameters."""

    @property
    def narrow(self) -> bool:
        """Whether of some parameters it holds the distance; a step is better made with few of them at once then."""
        return bool(self._ahead)

    @contextmanager
    def follow(self, parameters: Collection[nn.Parameter]) -> Iterator[None]:
        """Within it, one step is made with these of the parameters."""
        held = [(one, self._average(one)) for one in parameters if one in self._ahead]
        yield
        for parameter, average in held:
            self._hold(parameter, average)
        names = [name for one in parameters if (name := self._names.get(one)) in self._other]
        if names:
            with torch.no_grad():
                weights: list[Tensor] = [self._trained[name] for name in names]
                torch._foreach_lerp_([self._other[name] for name in names], weights, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average meanwhile, and afterwards, bit for bit, what it held before."""
        for name, parameter in self._trained.items():
            average = self._average(parameter) if parameter in self._ahead else self._other[name]
            self._other[name], parameter.data = parameter.data, average
        try:
            yield
        finally:
            for name, parameter in self._trained.items():
                average, parameter.data = parameter.data, self._other.pop(name)
                self._keep(name, average)

    def last_step(self) -> dict[str, Tensor]:
        """Within `in_place`: the weights that training goes on from."""
        return self._other

    @torch.no_grad()
    def resume(self, last_step: Mapping[str, Tensor]) -> None:
        """Goes on from a checkpoint: the model holds the average, and is given back the weights of the last step.

        Raises:
            ValueError: they are not those of these parameters.
        """
        if last_step.keys() != self._trained.keys():
            raise ValueError("the checkpoint's weights of the last step are not those of the layers trained")
        for name, parameter in self._trained.items():
            average = parameter.detach().clone()
            parameter.copy_(last_step[name])
            self._keep(name, average)

    def _keep(self, name: str, average: Tensor) -> None:
        """As the average of a parameter, which holds the weights of the last step."""
        parameter = self._trained[name]
        if parameter in self._ahead:
            self._hold(parameter, parameter.detach() + (average - parameter.detach()) / self.decay)
        else:
            self._other[name] = average

    @torch.no_grad()
    def _average(self, parameter: nn.Parameter) -> Tensor:
        """Of a large one."""
        average = torch.empty_like(parameter)
        for into, weights, ahead in _slices(average, parameter, self._ahead[parameter]):
            torch.add(weights, ahead, alpha=self.decay, out=into)
        return average

    @torch.no_grad()
    def _hold(self, parameter: nn.Parameter, before: Tensor) -> None:
        """`before` is the average before the step that has made the parameter what it is."""
        for into, one, weights in _slices(self._ahead[parameter], before, parameter):
            torch.sub(one, weights, out=into)


def _slices(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of tensors of one shape and layout, so short that what torch makes in between stays in a processor's cache."""
    return zip(*(torch.split(flat(one), AT_ONCE) for one in tensors), strict=True)
