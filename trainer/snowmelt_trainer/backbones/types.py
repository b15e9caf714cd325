"""What a backbone is, once it has been built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat
from torch import nn

from snowmelt_trainer.stages import GroupInfo


@dataclass(frozen=True)
class LayerGroup(GroupInfo):
    """Layers that are frozen and unfrozen together.

    `modules` hold the parameters, besides dropout that works on their input; `parameters` are names as in
    `model.named_parameters()`, of which single ones (a class token) may lie outside `modules`.
    """

    parameters: tuple[str, ...] = ()


Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"]
_Scale = Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1], in RGB, become the network's input: (pixels - mean) / std, after resizing with
    `interpolation`.

    `interpolation` is a value of `torchvision.transforms.InterpolationMode`, such as "bilinear".
    """

    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[_Scale, _Scale, _Scale]
    interpolation: Interpolation


IMAGENET_PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")


@dataclass(frozen=True)
class BuiltBackbone:
    """A network with a new head, its layer groups from input ("stem") to output ("head"), and the input that it
    expects."""

    model: nn.Module
    groups: tuple[LayerGroup, ...]
    preprocessing: Preprocessing
