"""`python -m hack.data.fashion_mnist OUT [--limit N]`: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) as image
folders OUT/train/<class>/ and OUT/test/<class>/.

The IDX files are those of Debian's package dataset-fashion-mnist, or of any folder given with --source.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hack.data.folders import write_folders

SOURCE = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes, gzipped: two zero bytes, type 8, the number of dimensions, their big-endian sizes,
    the values.

    Raises:
        SystemExit: when the file is missing or something else.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing: apt install dataset-fashion-mnist, or give --source DIR") from None
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of unsigned bytes")
    sizes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def write(source: Path, out: Path, limit: int | None) -> dict[str, int]:
    """Write both sets, of each class its first images, `limit` of them at most in all, and return how many."""
    counts = {}
    for name, prefix in FILES.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        of_each = None if limit is None else limit // len(CLASSES)
        ids = [int(i) for label in range(len(CLASSES)) for i in np.flatnonzero(labels == label)[:of_each]]
        write_folders(out / name, ((CLASSES[labels[i]], f"{i:05d}", Image.fromarray(images[i])) for i in ids))
        counts[name] = len(ids)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, help="most images in each of the two sets; all when absent")
    parser.add_argument("--source", type=Path, default=SOURCE, help=f"folder of the IDX files ({SOURCE})")
    arguments = parser.parse_args()
    counts = write(arguments.source, arguments.out, arguments.limit)
    print(f"{counts['train']} training and {counts['test']} test images in {arguments.out}")


if __name__ == "__main__":
    main()
