"""Variation of whole batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.data.augmentation import RANGES, Ranges, Variation, draw_variation, vary

LEVELS = list(RANGES)
CORNERS = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])


def drawn(ranges: Ranges, ids: list[int], *, samples: int = 500, seed: int = 3, epoch: int = 1) -> Variation:
    return draw_variation(ranges, np.array(ids, dtype=np.int64), samples=samples, seed=seed, stage=0, epoch=epoch)


def picture(size: int = 32) -> Tensor:
    """A coloured slope, (1, 3, size, size)."""
    along = torch.linspace(20, 230, size)
    return torch.stack([along.expand(size, size), along[:, None].expand(size, size), torch.full((size, size), 90.0)])[
        None
    ].to(torch.uint8)


def only(**colours: float) -> Variation:
    factors = [colours.get(name, 1.0) for name in ("brightness", "contrast", "saturation")]
    return Variation(torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]), torch.tensor([factors]), None)


@given(st.lists(st.integers(0, 499), min_size=1, max_size=12), st.sampled_from(LEVELS), st.integers(500, 900))
def test_an_images_variation_depends_on_no_other_image(ids: list[int], level: Augmentation, samples: int) -> None:
    together = drawn(RANGES[level], ids, samples=samples)
    for place, one in enumerate(ids):
        alone = drawn(RANGES[level], [one])
        assert torch.equal(together.of(slice(place, place + 1)).maps, alone.maps)


def test_a_batch_is_varied_as_its_images_one_by_one() -> None:
    """Also where it is larger than what is worked on at a time."""
    images = torch.randint(0, 256, (40, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    variation = drawn(RANGES[Augmentation.STRONG], list(range(40)))
    alone = [vary(images[i : i + 1], variation.of(slice(i, i + 1))) for i in range(40)]
    assert torch.equal(vary(images, variation), torch.cat(alone))


def test_no_images_are_varied_to_none() -> None:
    assert vary(picture()[:0], drawn(RANGES[Augmentation.STANDARD], [])).shape == (0, 3, 32, 32)


def test_nothing_in_range_leaves_an_image_as_it_is() -> None:
    assert torch.equal(vary(picture(), drawn(Ranges(), [7])), picture())


@pytest.mark.parametrize("level", LEVELS)
def test_no_level_mirrors_an_image(level: Augmentation) -> None:
    """A bright left edge stays on the left in every draw."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, :, :12] = 255
    variation = drawn(replace(RANGES[level], erased=0.0), list(range(200)))
    varied = vary(image.expand(200, -1, -1, -1), variation).float()
    assert (varied[..., :16].mean((1, 2, 3)) > varied[..., 16:].mean((1, 2, 3))).all()


def test_a_crop_keeps_the_share_of_the_image_and_lies_within_it() -> None:
    maps = drawn(Ranges(area=(0.6, 1.0), ratio=(0.85, 1.18)), list(range(500))).maps
    corners = CORNERS @ maps.transpose(1, 2)
    assert corners.abs().max() <= 1 + 1e-5
    area = maps[:, 0, 0] * maps[:, 1, 1]
    assert 0.55 < area.min() < 0.65
    assert 0.95 < area.max() <= 1


def test_a_turn_is_torchvisions() -> None:
    """Turned by the same angle about the middle, but for the rim, where torchvision's grid rounds otherwise."""
    variation = drawn(Ranges(degrees=10), [11])
    degrees = float(torch.rad2deg(torch.asin(variation.maps[0, 1, 0])))
    expected = v2.rotate(picture(), degrees, interpolation=v2.InterpolationMode.BILINEAR)
    difference = (vary(picture(), variation).int() - expected.int()).abs()
    assert abs(degrees) > 1
    assert difference[..., 4:-4, 4:-4].max() <= 1


@pytest.mark.parametrize(
    ("change", "torchvision"),
    [("brightness", v2.adjust_brightness), ("contrast", v2.adjust_contrast), ("saturation", v2.adjust_saturation)],
)
@pytest.mark.parametrize("factor", [0.8, 1.1])
def test_colours_change_as_torchvisions_do(change: str, torchvision: object, factor: float) -> None:
    expected = torchvision(picture(), factor)  # type: ignore[operator]
    assert (vary(picture(), only(**{change: factor})).int() - expected.int()).abs().max() <= 1


def test_a_quarter_of_the_images_lose_a_rectangle() -> None:
    white = torch.full((400, 3, 32, 32), 255, dtype=torch.uint8)
    varied = vary(white, drawn(Ranges(erased=0.25), list(range(400))))
    black = (varied == 0).all(1).float().mean((1, 2))
    assert 70 < int((black > 0).sum()) < 130
    assert black[black > 0].min() > 0.01
    assert black.max() < 0.36
