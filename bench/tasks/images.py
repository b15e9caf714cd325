"""The images of each task as arrays. Pure, but for reading the data sets' files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hack.data.fashion_mnist import CLASSES, FILES, SOURCE, read_idx

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

TARGET, PRETRAINED = range(5), range(5, 10)
"""Classes of Fashion-MNIST: t-shirt, trouser, pullover, dress and coat are the target; the network was pretrained on
sandal, shirt, sneaker, bag and ankle boot."""
PRETRAINING_IMAGES = 5000
"""Of each class of the training set, its first ones; the others are left for the shifted task."""
CONTRAST, NOISE = 0.5, 24.0
"""Of the shifted task: contrast about mid-grey, and standard deviation in grey levels of 255."""


class TaskName(StrEnum):
    NEAR = "near"
    """The five classes of Fashion-MNIST that the network has not seen."""
    FAR = "far"
    """Handwritten digits (scikit-learn's, 8x8)."""
    SHIFTED = "shifted"
    """The five classes that the network knows, inverted, at half the contrast and with noise."""


@dataclass(frozen=True)
class Images:
    """(N, H, W) grey images and the names of their classes."""

    pixels: Pixels
    labels: tuple[str, ...]


Splits = Mapping[str, Images]
"""By train, validation and test."""


def splits_of(task: TaskName, source: Path = SOURCE) -> Splits:
    """Every image of a task: 250 (far: 90) of each class to train on, 200 (40) that decide, and up to 400 (the rest)
    that are measured at the end.

    Raises:
        SystemExit: when the files of Fashion-MNIST are missing.
    """
    match task:
        case TaskName.NEAR:
            return _fashion(TARGET, source, skip=0)
        case TaskName.FAR:
            return _digits()
        case TaskName.SHIFTED:
            found = _fashion(PRETRAINED, source, skip=PRETRAINING_IMAGES)
            return {
                name: Images(shifted(images.pixels, seed), images.labels)
                for seed, (name, images) in enumerate(found.items())
            }


def pretraining_images(of_each: int, source: Path = SOURCE) -> tuple[Pixels, Labels]:
    """Images of the five pretrained classes, and their labels from 0 to 4."""
    images, labels = _idx("train", source)
    ids = _of_each(labels, PRETRAINED, 0, min(of_each, PRETRAINING_IMAGES))
    return images[ids], labels[ids].astype(np.int64) - PRETRAINED.start


def shifted(pixels: Pixels, seed: int) -> Pixels:
    """Inverted, flattened to half the contrast, and disturbed by noise that follows from the seed."""
    noise = np.random.default_rng(seed).normal(0.0, NOISE, pixels.shape)
    return np.clip(127.5 + CONTRAST * (127.5 - pixels.astype(np.float64)) + noise, 0, 255).round().astype(np.uint8)


def _fashion(classes: Sequence[int], source: Path, *, skip: int) -> Splits:
    images, labels = _idx("train", source)
    test_images, test_labels = _idx("test", source)
    return {
        "train": _named(images, labels, _of_each(labels, classes, skip, 250)),
        "validation": _named(images, labels, _of_each(labels, classes, skip + 250, 200)),
        "test": _named(test_images, test_labels, _of_each(test_labels, classes, 0, 400)),
    }


def _digits() -> Splits:
    from sklearn.datasets import load_digits  # noqa: PLC0415  (seconds to import, and only this task needs it)

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = np.asarray(digits.target)
    found = {}
    for name, skip, count in (("train", 0, 90), ("validation", 90, 40), ("test", 130, 1000)):
        ids = _of_each(labels, range(10), skip, count)
        found[name] = Images(pixels[ids], tuple(f"digit-{labels[i]}" for i in ids))
    return found


def _named(images: Pixels, labels: Pixels, ids: list[int]) -> Images:
    return Images(images[ids], tuple(CLASSES[labels[i]] for i in ids))


def _of_each(labels: npt.NDArray[np.generic], classes: Sequence[int], skip: int, count: int) -> list[int]:
    return [int(i) for label in classes for i in np.flatnonzero(labels == label)[skip : skip + count]]


def _idx(split: str, source: Path) -> tuple[Pixels, Pixels]:
    prefix = FILES[split]
    return (
        read_idx(source / f"{prefix}-images-idx3-ubyte.gz"),
        read_idx(source / f"{prefix}-labels-idx1-ubyte.gz"),
    )
