"""The average of the trained weights, which is what is evaluated, kept and delivered.

Steps large enough to learn shake the weights about a minimum; their average lies nearer to it (Polyak and Juditsky
1992; for fine-tuned networks Izmailov et al. 2018, arXiv 1803.05407). So an epoch's evaluation says what the stage has
learned at any moment of its schedule, and a stage that opens new layers does not seem worse than it is while their rate
is high. docs/design/20261125-after-the-head.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MEMORY = 0.5
"""Of an epoch's steps, how many the average is over. With all of them an epoch's evaluation lags behind what has been
learned; docs/design/20261127-before-everything.md has what was measured."""
MOST = 0.9998
"""Longest memory: some 5,000 steps, as is usual for much longer runs."""


def chosen_decay(given: float | None, steps_per_epoch: int) -> float:
    """How much of the average a step leaves as it was: what the spec says, or else a memory of half an epoch, so that
    it does not depend on the batch.

    >>> chosen_decay(None, 20)
    0.9
    """
    if given is not None:
        return given
    return min(MOST, 1 - 1 / max(1.0, MEMORY * steps_per_epoch))


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
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._trained = dict(parameters) if decay > 0 else {}
        self._other = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        """The averages; within `in_place`, the weights of the last step."""

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step."""
        if self._trained:
            torch._foreach_lerp_(list(self._other.values()), list(self._trained.values()), 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average meanwhile, and afterwards, bit for bit, what it held before."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

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
            parameter.copy_(last_step[name])

    def _exchange(self) -> None:
        """Of the tensors themselves: nothing is copied."""
        for name, parameter in self._trained.items():
            parameter.data, self._other[name] = self._other[name], parameter.data
