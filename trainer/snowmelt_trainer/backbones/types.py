"""What a backbone is, once it has been built."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are frozen and unfrozen together.

    `modules` are the modules that hold the parameters, besides dropout that works on their input; `parameters` are
    names as in `model.named_parameters()`, in which single parameters (a class token) may lie outside `modules`.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    parameter_count: int


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1], in RGB, become the network's input: (pixels - mean) / std, after resizing with
    `interpolation`.

    `interpolation` is a value of `torchvision.transforms.InterpolationMode`, such as "bilinear".
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


IMAGENET_PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")


@dataclass(frozen=True)
class BuiltBackbone:
    """A network with a new head, its layer groups from input ("stem") to output ("head"), and the input that it
    expects."""

    model: nn.Module
    groups: tuple[LayerGroup, ...]
    preprocessing: Preprocessing
