"""Small networks that use their weights in different ways."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer import training
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.convolution import multiply_small_maps
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.updates import Updates

LAYERS = 4
WIDTH = 32
IMAGES = 16
MATRIX = 500
"""Bytes: fewer than any matrix of these networks has, more than any vector."""
Network = Callable[[], nn.Module]


class NeverUsed(nn.Module):
    """Has weights that get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.never, self.used = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.used(inputs)
        return result


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)


class UsedTwice(OneLayer):
    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.layer(self.layer(inputs).relu())
        return result


class NeverCalled(OneLayer):
    """Multiplies by a layer's weights itself, as torchvision's Swin transformers do."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.layer.weight, self.layer.bias)


class CalledAndMultiplied(OneLayer):
    """Calls a layer, and multiplies by its weights once more."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(self.layer(inputs).relu(), self.layer.weight)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = inputs.view(-1, 4, WIDTH)
        result: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return result


def plain() -> nn.Module:
    layers = [module for _ in range(LAYERS) for module in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())]
    return nn.Sequential(*layers)


def convolving() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 2), nn.Flatten()
    )
    return model.to(memory_format=torch.channels_last)


def convolving_as_processors_do() -> nn.Module:
    model = convolving()
    multiply_small_maps(model)
    return model


NETWORKS = [
    plain,
    convolving,
    convolving_as_processors_do,
    NeverUsed,
    UsedTwice,
    NeverCalled,
    CalledAndMultiplied,
    Attending,
]


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [one for one in model.parameters() if one.nbytes >= MATRIX]


def updates_with_large_matrices(
    model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision, world: World
) -> Updates:
    """Of a small network, whose matrices count as large."""
    with patch.object(training.updates, "LARGE", MATRIX):
        return Updates(optimizer, model, AveragedWeights({}, 0.0), precision, world)
