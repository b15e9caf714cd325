from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.data import TargetData
from snowmelt_trainer.errors import RunError

Opened = Callable[..., TargetData]
TRAIN = {"uri": "pvc://shoes/train"}


def refused(opened: Opened, reason: Reason, *parts: str, **data: object) -> None:
    with pytest.raises(RunError) as caught:
        opened(**{"train": TRAIN, **data})
    assert caught.value.reason is reason
    for part in parts:
        assert part in caught.value.message
    assert "Traceback" not in caught.value.message


def test_data_that_is_not_there_is_named(volume: Path, opened: Opened) -> None:
    refused(opened, Reason.DATA_NOT_FOUND, "pvc://shoes/train", str(volume / "shoes/train"))


def test_an_empty_folder_is_refused(shoes: Path, opened: Opened) -> None:
    (shoes / "empty").mkdir()
    refused(opened, Reason.DATA_EMPTY, "pvc://shoes/empty", "no class folder", train={"uri": "pvc://shoes/empty"})


def test_images_without_class_folders_are_refused(shoes: Path, opened: Opened) -> None:
    refused(opened, Reason.DATA_EMPTY, "sub-folder named after the class", train={"uri": "pvc://shoes/train/boot"})


def test_an_empty_class_is_named(shoes: Path, opened: Opened) -> None:
    (shoes / "train/mule").mkdir()
    refused(opened, Reason.DATA_EMPTY, "'mule'", "train/mule")


def test_a_single_class_is_refused(shoes: Path, opened: Opened) -> None:
    (shoes / "train/clog").rename(shoes / "clogs")
    refused(opened, Reason.SINGLE_CLASS, "'boot'")


def test_a_class_that_training_lacks_is_named(shoes: Path, opened: Opened) -> None:
    (shoes / "test/clog").rename(shoes / "test/mule")
    refused(opened, Reason.CLASS_MISMATCH, "pvc://shoes/test", "mule", test={"uri": "pvc://shoes/test"})


def test_classes_of_single_images_leave_nothing_to_validate_on(
    volume: Path, opened: Opened, paint: Callable[..., Path]
) -> None:
    for name in ("boot", "clog"):
        paint(volume / "shoes/train" / name / "one.png")
    refused(opened, Reason.DATA_EMPTY, "spec.data.validation.uri")


def test_a_file_where_a_folder_is_needed_is_named(shoes: Path, opened: Opened) -> None:
    (shoes / "train.zip").write_bytes(b"PK")
    refused(opened, Reason.DATA_UNREADABLE, "train.zip", "is a file", train={"uri": "pvc://shoes/train.zip"})
    refused(opened, Reason.DATA_UNREADABLE, "is a folder", format="Manifest")


def test_a_text_file_with_the_name_of_an_image_is_named(shoes: Path, opened: Opened) -> None:
    (shoes / "train/boot/3.png").write_text("not a boot")
    refused(opened, Reason.CORRUPT_IMAGE, "train/boot/3.png", "is no image")


def test_an_empty_file_is_named(shoes: Path, opened: Opened) -> None:
    (shoes / "train/boot/3.png").write_bytes(b"")
    refused(opened, Reason.CORRUPT_IMAGE, "train/boot/3.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_a_truncated_image_is_named(shoes: Path, opened: Opened, paint: Callable[..., Path], suffix: str) -> None:
    whole = paint(shoes / f"train/boot/cut.{suffix}", (64, 64))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    refused(opened, Reason.CORRUPT_IMAGE, f"train/boot/cut.{suffix}")


def test_a_decompression_bomb_is_refused_before_it_unpacks(shoes: Path, opened: Opened) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (shoes / "train/boot/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    refused(opened, Reason.CORRUPT_IMAGE, "bomb.png", "pixels")


def test_an_image_just_above_the_limit_is_refused_too(shoes: Path, opened: Opened) -> None:
    Image.new("1", (10_000, 9_000)).save(shoes / "train/boot/large.png")
    refused(opened, Reason.CORRUPT_IMAGE, "large.png", "10000x9000 pixels are more than")


def test_a_format_that_is_no_picture_is_not_decoded(shoes: Path, opened: Opened) -> None:
    (shoes / "train/boot/script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    refused(opened, Reason.CORRUPT_IMAGE, "script.png", "is no image")


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read everything, so these tests become another user for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def reachable(shoes: Path) -> Path:
    """The data with every folder above it open to other users."""
    for folder in (shoes, *shoes.parents):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    return shoes


@pytest.mark.parametrize("closed", ["train", "train/boot", "train/boot/3.png", "."])
def test_what_may_not_be_read_is_named(reachable: Path, opened: Opened, closed: str) -> None:
    (reachable / closed).chmod(0)
    try:
        with _as_nobody():
            refused(opened, Reason.DATA_UNREADABLE, str(reachable / closed), "Permission denied")
    finally:
        (reachable / closed).chmod(0o755)


def test_a_manifest_that_may_not_be_read_is_named(reachable: Path, opened: Opened) -> None:
    (reachable / "list.csv").write_text("uri,label\n")
    (reachable / "list.csv").chmod(0)
    with _as_nobody():
        refused(opened, Reason.DATA_UNREADABLE, "list.csv", "Permission denied", train={"uri": "pvc://shoes/list.csv"})
