"""Variation of a whole batch of images at once, on the device that trains.

One image at a time, on the host, the transforms of torchvision take 0.7 ms (64 px) to 4 ms (224 px) each: ten times
what a large GPU needs to train on it. Here a batch is turned, cropped and zoomed by one affine map per image and one
interpolation, and its colours by a weighted sum; docs/design/20261126-batched-augmentation.md has what was measured.

Chance is a function of (seed, stage, epoch, sample id) and of nothing that happened before, so any number of workers,
and a run that resumes, see the same variations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.data.batches import Ids

Numbers = npt.NDArray[np.float32]
_PURPOSE = 4
"""Keeps this stream of random numbers apart from those of `splits`, `batches` and `transforms`, which share the
seed."""
_NUMBERS = 16
"""Random numbers of one variation, in [0, 1)."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in an image's brightness (ITU-R BT.601)."""
IN_CACHE = 2 * 2**20
"""Bytes of pixels, as float32, that a processor works on at a time: twice as fast as without a bound."""
RECIPE = 2
"""To be raised whenever the same draw comes to give another image: rows that were kept of it no longer hold."""


@dataclass(frozen=True)
class Ranges:
    """How far a level goes. No level mirrors an image: a mirrored letter, digit, road sign or X-ray is another one."""

    degrees: float = 0.0
    """Turned by up to this, either way."""
    shift: float = 0.0
    """Moved along each axis by up to this share of the side."""
    zoom: tuple[float, float] = (1.0, 1.0)
    area: tuple[float, float] = (1.0, 1.0)
    """Share of the image that a crop keeps, …"""
    ratio: tuple[float, float] = (1.0, 1.0)
    """… and its width over its height."""
    colour: float = 0.0
    """Brightness, contrast and saturation change by up to this share, each."""
    erased: float = 0.0
    """How often a rectangle is blackened, of 2 to 33% of the image."""


_STANDARD = Ranges(degrees=10, area=(0.6, 1.0), ratio=(0.85, 1.18), colour=0.2)
RANGES = {
    Augmentation.LIGHT: Ranges(shift=0.06, zoom=(0.92, 1.08)),
    Augmentation.STANDARD: _STANDARD,
    Augmentation.STRONG: replace(_STANDARD, erased=0.25),
}
"""By level; Strong also has a part of one image at a time (`transforms.View.varied`)."""
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)


@dataclass(frozen=True)
class Variation:
    """What happens to each image of a batch of n; on the CPU until it is applied."""

    maps: Tensor
    """(n, 2, 3) float32: from a place in the result to one in the image, both from -1 to 1 as `affine_grid` has it."""
    colours: Tensor | None
    """(n, 3) float32, factors of brightness, contrast and saturation; None where no colour changes."""
    erased: Tensor | None
    """(n, 4) float32, left, top, right and bottom as shares of the side; None where nothing is."""

    def of(self, images: slice) -> Variation:
        """That of some of the images."""
        colours, erased = (None if one is None else one[images] for one in (self.colours, self.erased))
        return Variation(self.maps[images], colours, erased)


def draw_variation(ranges: Ranges, ids: Ids, *, samples: int, seed: int, stage: int, epoch: int) -> Variation:
    """The variation of these of `samples` images in one epoch of one stage."""
    numbers = _uniform(seed, stage, epoch, samples)[ids]
    return Variation(
        torch.from_numpy(_maps(ranges, numbers[:, :8])),
        torch.from_numpy(1 + ranges.colour * (2 * numbers[:, 8:11] - 1)) if ranges.colour else None,
        torch.from_numpy(_rectangles(ranges.erased, numbers[:, 11:])) if ranges.erased else None,
    )


@torch.no_grad()
def vary(images: Tensor, variation: Variation) -> Tensor:
    """Images (n, 3, size, size) uint8, varied, of the same shape and type, on the same device. Outside of an image it
    is black."""
    if not len(images):
        return images
    if images.device.type != "cpu":
        return _vary(images, variation)
    several = max(1, IN_CACHE // (4 * images[0].numel()))
    some = [slice(start, start + several) for start in range(0, len(images), several)]
    return torch.cat([_vary(images[one], variation.of(one)) for one in some])


def _vary(images: Tensor, variation: Variation) -> Tensor:
    device = images.device
    grid = functional.affine_grid(variation.maps.to(device, non_blocking=True), list(images.shape), align_corners=False)
    pixels = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if variation.colours is not None:
        pixels = _coloured(pixels, variation.colours.to(device, non_blocking=True))
    if variation.erased is not None:
        pixels.mul_(_outside(variation.erased.to(device, non_blocking=True), images.shape[-1]))
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _coloured(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast about the image's mean, then saturation about each pixel's grey, as one sum."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    weights = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    grey = (pixels * weights).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    pixels = pixels.mul_(brightness * contrast * saturation)
    return pixels.add_(brightness * ((1 - saturation) * contrast * grey + (1 - contrast) * mean))


def _outside(rectangles: Tensor, size: int) -> Tensor:
    """(n, 1, size, size): 0 within each image's rectangle, 1 without."""
    places = (torch.arange(size, device=rectangles.device) + 0.5) / size
    left, top, right, bottom = rectangles[:, :, None].unbind(1)
    across, down = (places >= left) & (places < right), (places >= top) & (places < bottom)
    return (~(down[:, :, None] & across[:, None, :]))[:, None].float()


@lru_cache(maxsize=2)
def _uniform(seed: int, stage: int, epoch: int, samples: int) -> Numbers:
    """(samples, _NUMBERS), a row for each sample, which does not depend on how many there are."""
    generator = np.random.default_rng((_PURPOSE, seed, stage, epoch))
    return generator.random((samples, _NUMBERS), dtype=np.float32)


def _maps(ranges: Ranges, u: Numbers) -> Numbers:
    """(n, 2, 3): crop, then turn, zoom and shift, of which each image has its own."""
    angle = np.radians(ranges.degrees) * (2 * u[:, 0] - 1)
    zoom = _between(ranges.zoom, u[:, 1])
    width, height = _sides(ranges.area, ranges.ratio, u[:, 2:4])
    crop = np.zeros((len(u), 2, 3), dtype=np.float32)
    crop[:, 0, 0], crop[:, 1, 1] = width, height
    crop[:, 0, 2], crop[:, 1, 2] = (2 * u[:, 4] - 1) * (1 - width), (2 * u[:, 5] - 1) * (1 - height)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    maps = (turn / zoom[:, None, None]) @ crop
    maps[:, :, 2] += 2 * ranges.shift * (2 * u[:, 6:8] - 1)
    return maps.astype(np.float32)


def _rectangles(often: float, u: Numbers) -> Numbers:
    """(n, 4), empty for images that are spared."""
    width, height = _sides(ERASED_AREA, ERASED_RATIO, u[:, 1:3])
    left, top = u[:, 3] * (1 - width), u[:, 4] * (1 - height)
    found = np.stack([left, top, left + width, top + height], axis=1)
    found[u[:, 0] >= often] = 0.0
    return found.astype(np.float32)


def _sides(area: tuple[float, float], ratio: tuple[float, float], u: Numbers) -> tuple[Numbers, Numbers]:
    """Width and height, (n,) each, of rectangles within these bounds, as shares of the image's side."""
    least, most = ratio
    chosen, wide = _between(area, u[:, 0]), np.exp(_between((math.log(least), math.log(most)), u[:, 1]))
    return np.minimum(1, np.sqrt(chosen * wide)), np.minimum(1, np.sqrt(chosen / wide))


def _between(limits: tuple[float, float], u: Numbers) -> Numbers:
    least, most = limits
    found: Numbers = least + (most - least) * u
    return found
