"""One image file: whether it can be decoded, its digest, and its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.data.samples import shown
from snowmelt_trainer.errors import RunError

Pixels = npt.NDArray[np.uint8]
QUICK = 1e-3
"""Seconds a file up to which threads lose: small files on a local disk are decoded in 0.1 ms by one, and take four
threads more than three times as long, which wait for Python's lock."""
MAX_PIXELS = 89_478_485
"""Larger images are refused: a small file can unpack to any size (a decompression bomb). Pillow's own default limit."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
"""Decoders that files from outside may reach."""
Image.init()  # registers all decoders now, and not in several threads at once
_UNSCALED_MODES = frozenset({"I", "F"})


def digest_of(path: str) -> bytes:
    """Decode the whole image once and return the SHA-256 of its file.

    Decoding is what finds a truncated file; a JPEG is decoded at an eighth of its size, which reads every byte of it
    at a third of the cost.

    Raises:
        RunError: CorruptImage, DataNotFound or DataUnreadable, naming the file.
    """
    with _decoding(path) as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        image = _opened(file)
        image.draft("RGB", (1, 1))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return digest


def square_pixels(path: str, size: int, interpolation: str) -> Pixels:
    """The centre square of the image, scaled to `size`, as uint8 RGB of shape (size, size, 3).

    The EXIF orientation is applied, transparent pixels are laid on white, 16-bit grey is brought to 8 bits, CMYK and
    palettes become RGB. Raises as `digest_of`.
    """
    with _decoding(path) as file:
        image = _opened(file)
        image.draft(
            None, (2 * size, 2 * size)
        )  # decodes a large JPEG at 1/2, 1/4 or 1/8, never below twice the size that is needed
        upright = _in_rgb(ImageOps.exif_transpose(image))
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        square = upright.resize(
            (size, size), Image.Resampling[interpolation.upper()], box=(left, top, left + side, top + side)
        )
        return np.array(square)


def _opened(file: BufferedReader) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
    if image.mode in _UNSCALED_MODES:
        raise ValueError("32-bit pixels have no fixed range: convert the image to 8 or 16 bits")
    return image


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _decoding(path: str) -> Iterator[BufferedReader]:
    """Opens the file; whatever goes wrong within becomes a RunError that names it."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except (MemoryError, RunError):
        raise
    except FileNotFoundError:
        raise RunError(Reason.DATA_NOT_FOUND, f"{shown(path)}: no such file") from None
    except OSError as error:
        if error.errno is not None:
            raise RunError(Reason.DATA_UNREADABLE, f"{shown(path)}: cannot be read: {error.strerror}") from None
        raise _corrupt(path, error) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on malformed input
        raise _corrupt(path, error) from None


def _corrupt(path: str, error: Exception) -> RunError:
    what = "is no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
    return RunError(Reason.CORRUPT_IMAGE, f"{shown(path)}: cannot be decoded: {what}. Replace or remove the file")
