from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt_trainer.contract.data import Data
from snowmelt_trainer.data import TargetData, open_data

Paint = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def paint() -> Paint:
    """Writes an image of its own noise, so that no two are alike."""
    count = 0

    def write(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
        nonlocal count
        count += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(count).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The volumes root; pvc://shoes/ is its folder shoes."""
    (tmp_path / "volumes" / "shoes").mkdir(parents=True)
    return tmp_path / "volumes"


@pytest.fixture
def shoes(volume: Path, paint: Paint) -> Path:
    """pvc://shoes: train with 10 boots and 6 clogs, test with 2 of each."""
    root = volume / "shoes"
    for split, boots, clogs in (("train", 10, 6), ("test", 2, 2)):
        for i in range(boots):
            paint(root / split / "boot" / f"{i}.png")
        for i in range(clogs):
            paint(root / split / "clog" / f"{i}.png")
    return root


@pytest.fixture
def opened(volume: Path) -> Callable[..., TargetData]:
    """open_data of spec.data as in YAML."""

    def run(*, seed: int = 0, **data: object) -> TargetData:
        return open_data(Data.model_validate(data), seed=seed, volumes_root=str(volume))

    return run
