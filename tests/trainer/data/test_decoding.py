from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.data import SampleSet, decoding
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.decoding import Decoders, most_processes
from snowmelt_trainer.data.transforms import Draw, View

VIEW = View(8, IMAGENET_PREPROCESSING)
BATCHES = [range(start, start + 64) for start in range(0, 256, 64)]
MILLISECOND = 1e-3


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(ImageDataset):
    """Images that take so many seconds each to be decoded."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__(SampleSet(("any",) * 256, (0,) * 256), VIEW)
        self.clock, self.seconds = clock, seconds

    def __getitem__(self, key: int | Draw) -> Tensor:
        self.clock.now += self.seconds
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


def watched(*, decode: float, use: float, most: int = 7, warm_up: float = 0.0, passes: int = 1) -> Decoders:
    """Decoders that have handed out four batches in each pass; seconds an image, and of the first use besides."""
    clock = Clock(warm_up)
    decoders = Decoders(Timed(clock, decode), most, clock=clock)
    for _ in range(passes):
        for batch in decoders.images(BATCHES):
            clock.now += use * len(batch) + warm_up
            warm_up = 0.0
    return decoders


def test_small_files_are_decoded_where_they_are_used() -> None:
    assert watched(decode=0.1 * MILLISECOND, use=MILLISECOND).processes(20_000) == 0


def test_large_ones_by_as_many_processes_as_keep_up_with_their_use() -> None:
    assert watched(decode=6 * MILLISECOND, use=2.5 * MILLISECOND).processes(10_000) == 3
    assert watched(decode=6 * MILLISECOND, use=20 * MILLISECOND).processes(10_000) == 1
    assert watched(decode=6 * MILLISECOND, use=0.1 * MILLISECOND).processes(10_000) == 7


def test_a_slow_first_use_hides_nothing() -> None:
    assert watched(decode=6 * MILLISECOND, use=2.5 * MILLISECOND, warm_up=30.0).processes(10_000) == 3


def test_few_large_ones_are_not_worth_a_process() -> None:
    assert watched(decode=6 * MILLISECOND, use=MILLISECOND).processes(100) == 0


def test_what_many_passes_have_cost_counts() -> None:
    assert watched(decode=MILLISECOND, use=MILLISECOND).processes(100) == 0
    assert watched(decode=MILLISECOND, use=MILLISECOND, passes=30).processes(100) == 1


def test_a_worker_of_one_cpu_has_no_process() -> None:
    assert [most_processes(cpus) for cpus in (0.5, 1, 2, 4.9, 64)] == [0, 0, 1, 3, 8]
    assert watched(decode=1.0, use=MILLISECOND, most=0).processes(10_000) == 0


def test_processes_take_over_in_the_course_of_a_pass(
    tmp_path: Path, paint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "START_UP", -1.0)
    samples = SampleSet(tuple(str(paint(tmp_path / f"{i}.png", (9, 9))) for i in range(10)), (0,) * 10)
    dataset, batches = ImageDataset(samples, VIEW), [[0, 5], [9, 2], [1], [7, 8, 3], [4, 6]]
    decoders = Decoders(dataset, 2)
    for epoch in range(2):
        found = list(decoders.images(batches))
        assert all(
            torch.equal(images, torch.stack([dataset[i] for i in batch]))
            for images, batch in zip(found, batches, strict=True)
        ), epoch
    assert decoders.processes(0) > 0
    decoders.close()
