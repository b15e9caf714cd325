from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snowmelt_trainer.data.images import square_pixels

SIZE = 16


def seen(image: Image.Image, path: Path, **options: Any) -> np.ndarray:
    """The image written to a file and read as the network sees it."""
    image.save(path, **options)
    return square_pixels(str(path), SIZE, "bilinear")


@pytest.mark.parametrize(
    ("mode", "fill", "rgb"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (10, 120, 250), (10, 120, 250)),
        ("LA", (40, 255), (40, 40, 40)),
        ("RGBA", (10, 120, 250, 255), (10, 120, 250)),
        ("RGBA", (10, 120, 250, 0), (255, 255, 255)),
        ("I;16", 0xC8FF, (200, 200, 200)),
    ],
)
def test_every_mode_becomes_eight_bit_rgb(tmp_path: Path, mode: str, fill: object, rgb: tuple[int, ...]) -> None:
    pixels = seen(Image.new(mode, (20, 20), fill), tmp_path / "image.png")  # type: ignore[arg-type]
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == rgb).all()


def test_a_palette_becomes_its_colours_and_its_transparent_entry_white(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 120, 250])
    assert (seen(image, tmp_path / "opaque.png") == (10, 120, 250)).all()
    assert (seen(image, tmp_path / "clear.png", transparency=1) == 255).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = seen(Image.new("CMYK", (20, 20), (255, 0, 0, 0)), tmp_path / "print.jpg")
    assert abs(pixels.astype(int) - (0, 255, 255)).max() < 10


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_the_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (0, 0, 32, 16))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter: what was above is now on the right
    pixels = seen(image, tmp_path / f"turned.{suffix}", exif=exif)
    assert pixels[:, -4:].min() > 230
    assert pixels[:, :4].max() < 25


def test_a_wide_image_shows_its_centre_square(tmp_path: Path) -> None:
    image = Image.new("L", (300, 100))
    image.paste(255, (90, 0, 210, 100))  # the filter looks a few pixels beyond the square
    assert seen(image, tmp_path / "wide.png").min() == 255


def test_a_panorama_costs_no_more_memory_than_its_square(tmp_path: Path) -> None:
    assert seen(Image.new("L", (60_000, 2), 7), tmp_path / "panorama.png").max() == 7


def test_a_large_jpeg_is_decoded_small_with_nearly_the_same_pixels(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    image = Image.fromarray(np.stack([np.broadcast_to(ramp, (512, 512))] * 3, -1).copy())
    whole = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).astype(int)
    assert abs(seen(image, tmp_path / "ramp.jpg", quality=95).astype(int) - whole).max() <= 3
