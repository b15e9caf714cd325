"""The data sets that examples and the demo use: real, complete, and the same every time."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

from hack.data import digits, fashion_mnist
from hack.data.letters import LETTERS, installed_fonts, render, rendered_set
from snowmelt_trainer.contract.data import Data
from snowmelt_trainer.data import open_data

EXAMPLES = Path(__file__).parents[3] / "examples"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.png")
    }


def test_the_digits_are_scikit_learns_each_once(tmp_path: Path) -> None:
    assert digits.write(tmp_path) == {"train": 1437, "test": 360}
    source = load_digits()
    for path in tmp_path.rglob("*.png"):
        pixels = np.asarray(Image.open(path)) * (16 / 255)
        assert np.array_equal(np.round(pixels), source.images[int(path.stem)])
        assert path.parent.name == str(source.target[int(path.stem)])
    assert len({path.stem for path in tmp_path.rglob("*.png")}) == 1797


def test_writing_the_digits_again_changes_nothing(tmp_path: Path) -> None:
    digits.write(tmp_path)
    first = contents(tmp_path)
    digits.write(tmp_path)
    assert contents(tmp_path) == first


def test_the_digits_open_as_target_data(tmp_path: Path) -> None:
    digits.write(tmp_path / "digits")
    spec = Data.model_validate({"train": {"uri": "pvc://digits/train"}, "test": {"uri": "pvc://digits/test"}})
    data = open_data(spec, seed=0, volumes_root=str(tmp_path))
    assert data.classes == tuple("0123456789")
    assert data.test is not None
    assert (len(data.train) + len(data.validation), len(data.test)) == (1437, 360)
    assert (data.duplicates_across_splits, data.warnings) == (0, ())


def test_the_manifest_of_the_digits_names_the_same_sets(tmp_path: Path) -> None:
    digits.write(tmp_path / "digits")
    folders = {"train": {"uri": "pvc://digits/train"}, "test": {"uri": "pvc://digits/test"}}
    table = {"train": {"uri": "pvc://digits/manifest.csv"}}
    by_folder, by_table = (
        open_data(Data.model_validate(spec), seed=0, volumes_root=str(tmp_path)) for spec in (folders, table)
    )
    assert by_table.classes == by_folder.classes
    assert by_folder.test is not None
    assert by_table.test is not None
    assert set(by_table.test.paths) == set(by_folder.test.paths)
    assert len(by_table.train) == len(by_folder.train)


def test_fashion_mnist_is_read_from_its_idx_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        _write_idx(source / f"{prefix}-images-idx3-ubyte.gz", pixels)
        _write_idx(source / f"{prefix}-labels-idx1-ubyte.gz", labels)
    assert fashion_mnist.write(source, tmp_path / "out", limit=20) == {"train": 20, "test": 20}
    assert Counter(path.parent.name for path in (tmp_path / "out/train").rglob("*.png")) == dict.fromkeys(
        fashion_mnist.CLASSES, 2
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/train/bag/00018.png")), pixels[18])


def _write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_letters_follow_from_their_seed_and_are_never_blank() -> None:
    fonts = installed_fonts()
    images, labels = rendered_set(fonts, 2, seed=3)
    assert images.shape == (2 * len(LETTERS), 8, 8)
    assert np.array_equal(images, rendered_set(fonts, 2, seed=3)[0])
    assert not np.array_equal(images, rendered_set(fonts, 2, seed=4)[0])
    assert Counter(labels.tolist()) == dict.fromkeys(range(len(LETTERS)), 2)
    assert render("x", fonts[0], np.random.default_rng(0)).max() > 100


def test_the_examples_name_the_committed_backbone_by_its_checksum() -> None:
    weights = EXAMPLES / "backbones/letters-shufflenet_v2_x0_5.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    backbones = [yaml.safe_load(path.read_text())["spec"]["backbone"] for path in EXAMPLES.glob("*.yaml")]
    assert {backbone["weightsFrom"]["sha256"] for backbone in backbones if "weightsFrom" in backbone} == {digest}
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    assert metadata["architecture"] == "shufflenet_v2_x0_5"
    assert not set(json.loads(metadata["classes"])) & set("0123456789")
