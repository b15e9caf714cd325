"""Letters (a-z and A-Z, no digits) rendered from the fonts on this machine, made to look as the scanned 8x8 digits
do.

A glyph is drawn large, thickened, sheared, rotated, stretched, shifted, blurred, brought down to 8x8 grey pixels of
16 levels, and disturbed by noise: the way of a pen stroke through a coarse scanner.
"""

from __future__ import annotations

import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

LETTERS = string.ascii_letters
DEBIAN_PACKAGES = (
    "fonts-breip",
    "fonts-bwht",
    "fonts-cantarell",
    "fonts-comic-neue",
    "fonts-crosextra-caladea",
    "fonts-crosextra-carlito",
    "fonts-dancingscript",
    "fonts-dejavu",
    "fonts-dkg-handwriting",
    "fonts-ecolier-court",
    "fonts-femkeklaver",
    "fonts-freefont-ttf",
    "fonts-hack",
    "fonts-humor-sans",
    "fonts-inconsolata",
    "fonts-isabella",
    "fonts-jura",
    "fonts-karla",
    "fonts-kaushanscript",
    "fonts-klee",
    "fonts-kristi",
    "fonts-lato",
    "fonts-liberation2",
    "fonts-open-sans",
    "fonts-quicksand",
    "fonts-rufscript",
    "fonts-sil-andika",
    "fonts-tomsontalks",
)
"""Debian packages of the fonts that the committed weights were made from."""
LOW = 8
_CANVAS = 96

Pixels = npt.NDArray[np.uint8]


def installed_fonts() -> list[str]:
    """Font files that have every letter, sorted; variable fonts (a bracket in the name) are left out.

    Raises:
        SystemExit: when fontconfig is not installed or knows no such font.
    """
    try:
        listed = subprocess.run(
            ["fc-list", "--format", "%{file}\n", ":charset=41-5a 61-7a:scalable=true"],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise SystemExit("fc-list is missing: install fontconfig") from None
    fonts = sorted({line for line in listed.stdout.split("\n") if line.endswith((".ttf", ".otf")) and "[" not in line})
    if not fonts:
        raise SystemExit(f"no font with Latin letters: install for instance {' '.join(DEBIAN_PACKAGES)}")
    return fonts


def render(letter: str, font: str, rng: np.random.Generator) -> Pixels:
    """One letter as (8, 8) uint8, white on black, varied by `rng`."""
    glyph = _drawn(letter, font, float(rng.uniform(0.55, 0.8)))
    glyph = glyph.filter(ImageFilter.MaxFilter(int(rng.choice([1, 3, 5, 7]))))
    glyph = _warped(glyph, rng).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 4.0))))
    box = glyph.getbbox()
    if box is not None:
        glyph = glyph.crop(_margin(box, rng))
    low = np.asarray(glyph.resize((LOW, LOW), Image.Resampling.BOX), dtype=np.float32) / 255
    peak = max(float(low.max()), 1e-3)
    contrast = low / peak * rng.uniform(0.8, 1.15) + rng.normal(0.0, rng.uniform(0.0, 0.06), low.shape)
    return np.asarray(np.round(np.clip(contrast, 0, 1) * 16) * (255 / 16), dtype=np.uint8)


def rendered_set(fonts: Sequence[str], per_letter: int, seed: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """(N, 8, 8) images and their labels (indices into LETTERS); each image's font and variation follow from `seed`."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(LETTERS)), per_letter)
    images = [render(LETTERS[label], fonts[int(rng.integers(len(fonts)))], rng) for label in labels]
    return np.stack(images), labels


def _drawn(letter: str, font: str, share: float) -> Image.Image:
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    face = ImageFont.truetype(font, int(_CANVAS * share))
    ImageDraw.Draw(canvas).text((_CANVAS / 2, _CANVAS / 2), letter, fill=255, font=face, anchor="mm")
    return canvas


def _warped(glyph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotated, sheared and stretched about the centre."""
    angle, shear = np.deg2rad(rng.normal(0, 8)), rng.normal(0, 0.15)
    scale = np.diag(rng.uniform(0.8, 1.25, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ scale
    centre = np.full(2, _CANVAS / 2)
    offset = centre - matrix @ centre
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return glyph.transform(glyph.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _margin(box: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A frame around the glyph as tall as it, as the digits have one, with its sides moved a little."""
    left, top, right, bottom = box
    height = bottom - top
    width = max(right - left, int(height * rng.uniform(0.75, 1.1)))
    middle = (left + right) // 2
    jitter = rng.integers(-3, 5, 4)
    return (
        int(middle - width // 2 - jitter[0]),
        int(top - jitter[1]),
        int(middle + width // 2 + jitter[2] + 1),
        int(bottom + jitter[3]),
    )


def font_names(fonts: Sequence[str]) -> list[str]:
    return [Path(font).name for font in fonts]
