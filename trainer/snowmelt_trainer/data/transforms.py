"""What the network sees of an image: the square as it is, or varied at random.

Chance is a function of (seed, stage, epoch, sample id) and of nothing that happened before, so any number of workers,
and a run that resumes, see the same variations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as untyped_v2

from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.data.images import square_pixels

v2: Any = untyped_v2  # torchvision ships no types
Transform = Callable[[Tensor], Tensor]

SMALL = 1000
"""Augmentation Auto is Light below this many training images."""
_PURPOSE = 3
"""Keeps this stream of random numbers apart from those of `splits` and `batches`, which share the seed."""


class Draw(NamedTuple):
    """One sample's turn in one epoch of one stage."""

    sample: int
    stage: int
    epoch: int


def resolve(augmentation: Augmentation, training_images: int) -> Augmentation:
    """The level that Auto stands for."""
    if augmentation is not Augmentation.AUTO:
        return augmentation
    return Augmentation.LIGHT if training_images < SMALL else Augmentation.STANDARD


@dataclass(frozen=True)
class View:
    """How files become pixels. `training.precision.place` makes the network's input of them."""

    image_size: int
    preprocessing: Preprocessing
    augmentation: Augmentation = Augmentation.NONE
    """A resolved level; used for training draws alone."""
    seed: int = 0

    def square(self, path: str) -> Tensor:
        """The file's centre square, (3, image_size, image_size) uint8: what is kept in memory, and the same whether
        or not it was.

        Raises:
            RunError: CorruptImage, DataNotFound or DataUnreadable, naming the file.
        """
        return (
            torch.from_numpy(square_pixels(path, self.image_size, self.preprocessing.interpolation))
            .permute(2, 0, 1)
            .contiguous()
        )

    def varied(self, square: Tensor, draw: Draw) -> Tensor:
        """For training: the square, augmented as `draw` has it, of the same shape and type."""
        if self._augment is None:
            return square
        seed = np.random.SeedSequence((_PURPOSE, self.seed, draw.stage, draw.epoch, draw.sample)).generate_state(
            1, np.uint64
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed[0] >> np.uint64(1)))
            return self._augment(square)

    @cached_property
    def _augment(self) -> Transform | None:
        return _augmentation(self.augmentation, self.image_size)


def _augmentation(level: Augmentation, size: int) -> Transform | None:
    """No level mirrors an image: a mirrored letter, digit, road sign or X-ray is another one."""
    crop = InterpolationMode.BILINEAR
    light = [v2.RandomAffine(degrees=0, translate=(0.06, 0.06), scale=(0.92, 1.08), interpolation=crop)]
    standard = [
        v2.RandomAffine(degrees=10, interpolation=crop),
        v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.85, 1.18), interpolation=crop, antialias=True),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
    ]
    strong = [*standard, v2.TrivialAugmentWide(interpolation=crop), v2.RandomErasing(p=0.25)]
    steps: list[Transform] = {
        Augmentation.NONE: [],
        Augmentation.LIGHT: light,
        Augmentation.STANDARD: standard,
        Augmentation.STRONG: strong,
    }[level]
    return v2.Compose(steps) if steps else None
