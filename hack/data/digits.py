"""`python -m hack.data.digits OUT`: scikit-learn's 1,797 handwritten digits (8x8, 16 grey levels; UCI Optical
Recognition of Handwritten Digits) as image folders OUT/train/<digit>/ and OUT/test/<digit>/, and as a table of all of
them, OUT/manifest.csv.

A fifth of each digit is the test set, drawn by a fixed seed. The pixels are written as they are, as 8x8 grey PNGs:
scaling is the reader's business.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hack.data.folders import write_folders

TEST_SHARE = 0.2
SEED = 0


def write(out: Path) -> dict[str, int]:
    """Write both sets and return how many images each has; writing again changes nothing."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(images)), test_size=TEST_SHARE, stratify=digits.target, random_state=SEED
    )
    for name, ids in (("train", train), ("test", test)):
        write_folders(
            out / name, ((str(digits.target[i]), f"{i:04d}", Image.fromarray(images[i])) for i in sorted(ids))
        )
    _write_manifest(out / "manifest.csv", {"train": train, "test": test}, digits.target)
    return {"train": len(train), "test": len(test)}


def _write_manifest(path: Path, sets: dict[str, npt.NDArray[np.int64]], labels: npt.NDArray[np.int64]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uri", "label", "split"))
        for name, ids in sets.items():
            rows.writerows((f"{name}/{labels[i]}/{i:04d}.png", labels[i], name) for i in sorted(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    counts = write(out)
    print(f"{counts['train']} training and {counts['test']} test images in {out}")


if __name__ == "__main__":
    main()
