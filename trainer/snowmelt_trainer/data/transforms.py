"""From a file to the square that is kept in memory, and from there to what is trained on.

Most variation is made of whole batches (`augmentation`); what is here are the operations of TrivialAugment, which
differ from image to image. Chance is a function of (seed, stage, epoch, sample id), as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from snowmelt_trainer.data.augmentation import RANGES, draw_variation, vary
from snowmelt_trainer.data.images import Pixels, square_pixels

v2: Any = untyped_v2  # torchvision ships no types
Transform = Callable[[Tensor], Tensor]

SMALL = 1000
"""Augmentation Auto is Light below this many training images."""
_PURPOSE = 3
"""Keeps this stream of random numbers apart from those of `splits`, `batches` and `augmentation`, which share the
seed."""


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

    def square(self, path: str) -> Pixels:
        """The file's centre square, (3, image_size, image_size): what is kept in memory, and the same whether or not it
        was.

        Raises:
            RunError: CorruptImage, DataNotFound or DataUnreadable, naming the file.
        """
        pixels = square_pixels(path, self.image_size, self.preprocessing.interpolation)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def varied(self, squares: Tensor, draws: Sequence[Draw], samples: int) -> Tensor:
        """For training: some of `samples` squares, (n, 3, image_size, image_size) uint8 on any device, of one epoch,
        varied as `draws` have it. At level Strong after TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158).

        Raises:
            ValueError: the draws are of several epochs.
        """
        ranges = RANGES.get(self.augmentation)
        if ranges is None or not draws:
            return squares
        ((stage, epoch),) = {(one.stage, one.epoch) for one in draws}
        if self.augmentation is Augmentation.STRONG:
            squares = torch.stack([self._trivially(square, draw) for square, draw in zip(squares, draws, strict=True)])
        ids = np.fromiter((one.sample for one in draws), np.int64, len(draws))
        return vary(squares, draw_variation(ranges, ids, samples=samples, seed=self.seed, stage=stage, epoch=epoch))

    def _trivially(self, square: Tensor, draw: Draw) -> Tensor:
        """(3, image_size, image_size) after one operation, which is drawn on the host."""
        where = (_PURPOSE, self.seed, draw.stage, draw.epoch, draw.sample)
        seed = np.random.SeedSequence(where).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed[0] >> np.uint64(1)))
            return self._trivial(square)

    @cached_property
    def _trivial(self) -> Transform:
        transform: Transform = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
        return transform
