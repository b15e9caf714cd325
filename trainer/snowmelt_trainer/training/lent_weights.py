"""Weights in BFloat16, made for each use and kept no longer than it lasts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from snowmelt_trainer.training.gradients import NarrowGradients


class LentWeights:
    """Gives a network's matrix products and convolutions their weights in BFloat16, as autocast does.

    Autocast keeps what it makes until the backward pass is through with it, so that when that begins, all weights lie
    in memory half as large once more. Here a layer is lent its weights: they are made before it runs and let go after
    it, and made again when the backward pass gets there, to the same values. Their gradients stay in BFloat16.
    """

    def __init__(self, network: nn.Module, parameters: Collection[nn.Parameter], gradients: NarrowGradients) -> None:
        """Those of `parameters` that the network's layers multiply by; their gradients go to `gradients`."""
        chosen = set(parameters)
        self._borrowers = {
            module: places
            for module in network.modules()
            if (places := [place for place in _places(module) if place.parameter in chosen])
        }
        self._gradients = gradients
        self._lent: dict[int, nn.Parameter] = {}
        """By the address of what was made of it: within a layer."""

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Within it, the network runs so; its parameters are in their places when no layer runs."""
        with ExitStack() as stack:
            for module, places in self._borrowers.items():
                for handle in (
                    module.register_forward_pre_hook(partial(self._lend, places)),
                    module.register_forward_hook(partial(self._take_back, places), always_call=True),
                ):
                    stack.callback(handle.remove)
            stack.enter_context(saved_tensors_hooks(self._without, _made_again))
            yield

    def _lend(self, places: list[_Place], *_: Any) -> None:
        for place in places:
            made = _Narrow.apply(place.parameter, self._gradients.add)
            self._lent[_address(made)] = place.parameter
            place.put(made)

    def _take_back(self, places: list[_Place], *_: Any) -> None:
        self._lent.clear()
        for place in places:
            place.put(place.parameter)

    def _without(self, saved: Tensor) -> Tensor | _Remade:
        """What the backward pass is to find of a tensor that it needs."""
        parameter = self._lent.get(_address(saved))
        if parameter is None:
            return saved
        return _Remade(parameter, saved.size(), saved.stride(), int(saved.storage_offset()))


@dataclass(frozen=True)
class _Place:
    """Where a module looks for a weight."""

    owner: nn.Module
    name: str
    parameter: nn.Parameter

    def put(self, weight: Tensor) -> None:
        """Past `nn.Module`'s own check, which wants a parameter; torch.func.functional_call does the same."""
        self.owner._parameters[self.name] = weight  # type: ignore[assignment]


def _places(module: nn.Module) -> Iterator[_Place]:
    """Of what a layer multiplies by in whatever type autocast says, and uses for nothing else."""
    owners: list[tuple[nn.Module, str]] = []
    if isinstance(module, nn.Linear | nn.Conv2d):
        owners = [(module, "weight")]
    elif isinstance(module, nn.MultiheadAttention):
        owners = [(module, "in_proj_weight"), (module.out_proj, "weight")]  # it does not call the layer out_proj
    for owner, name in owners:
        parameter = owner._parameters[name]
        if parameter is not None:
            yield _Place(owner, name, parameter)


class _Narrow(torch.autograd.Function):
    """A parameter in BFloat16; the gradient goes where it is told to, and not to the parameter."""

    @staticmethod
    def forward(ctx: Any, parameter: nn.Parameter, add: Callable[[nn.Parameter, Tensor], None]) -> Tensor:
        ctx.add = partial(add, parameter)
        return parameter.to(torch.bfloat16)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        ctx.add(gradient)
        return None, None


@dataclass(frozen=True)
class _Remade:
    """A parameter in BFloat16, or a view of it, that is to be made when it is needed."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


def _made_again(saved: Tensor | _Remade) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    return saved.parameter.detach().to(torch.bfloat16).as_strided(saved.size, saved.stride, saved.offset)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
