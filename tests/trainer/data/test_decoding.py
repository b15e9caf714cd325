from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, current_thread, main_thread

import numpy as np
import pytest
import torch

from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.data import SampleSet
from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.decoding import Decoders, decoding_threads
from snowmelt_trainer.data.images import QUICK, Pixels
from snowmelt_trainer.data.transforms import View

VIEW = View(8, IMAGENET_PREPROCESSING)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(ImageDataset):
    """Images that take so long each to be decoded, and know where they were."""

    def __init__(self, seconds: float) -> None:
        super().__init__(SampleSet(("any",) * 64, (0,) * 64), VIEW)
        self.clock, self.seconds = Clock(), seconds
        self.elsewhere: list[bool] = []
        self.done = Condition()

    def square(self, sample: int) -> Pixels:
        with self.done:
            self.clock.now += self.seconds
            self.elsewhere.append(current_thread() is not main_thread())
            self.done.notify_all()
        return np.full((3, 8, 8), sample, np.uint8)

    def reached(self, images: int) -> bool:
        """Whether so many get decoded without anybody asking."""
        with self.done:
            return self.done.wait_for(lambda: len(self.elsewhere) >= images, timeout=20.0)


def batches(*sizes: int) -> list[Ids]:
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def decoded(dataset: Timed, wanted: Sequence[Ids], threads: int) -> Decoders:
    decoders = Decoders(dataset, threads, clock=dataset.clock)
    for ids, images in zip(wanted, decoders.images(wanted), strict=True):
        assert images[:, 0, 0, 0].tolist() == ids.tolist()
    return decoders


def test_small_files_are_decoded_where_they_are_used() -> None:
    quick = Timed(0.1 * QUICK)
    assert decoded(quick, batches(8, 8, 8), threads=4).seconds == pytest.approx(0.1 * QUICK)
    assert quick.elsewhere == [False] * 24


def test_slow_ones_are_divided_among_threads_once_one_batch_was_slow() -> None:
    slow = Timed(20 * QUICK)
    decoders = decoded(slow, batches(8, 8, 8), threads=4)
    assert slow.elsewhere == [False] * 8 + [True] * 16
    assert decoders.threads == 4


def test_beside_an_accelerator_slow_images_are_decoded_before_they_are_asked_for() -> None:
    slow = Timed(20 * QUICK)
    decoders = Decoders(slow, 2, ahead=2, clock=slow.clock)
    wanted = batches(4, 4, 4, 4, 4, 4)
    list(decoders.images(wanted[:1]))
    coming = decoders.images(wanted[1:])
    assert next(coming)[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    assert slow.reached(16)  # of the fourth batch, while the second is in use
    assert [int(images[0, 0, 0, 0]) for images in coming] == [8, 12, 16, 20]


def test_a_worker_of_one_cpu_decodes_where_it_trains() -> None:
    slow = Timed(20 * QUICK)
    decoded(slow, batches(8, 8), threads=1)
    assert not any(slow.elsewhere)


def test_beside_an_accelerator_one_cpu_is_left_for_training() -> None:
    assert [decoding_threads(cpus, CPU) for cpus in (0.5, 1, 2, 4.9, 64)] == [1, 1, 2, 4, 16]
    assert [decoding_threads(cpus, GPU) for cpus in (0.5, 1, 2, 4.9, 64)] == [1, 1, 1, 3, 16]


def test_threads_decode_what_one_would_have_decoded(tmp_path: Path, paint: Callable[..., Path]) -> None:
    samples = SampleSet(tuple(str(paint(tmp_path / f"{i}.png", (900, 900))) for i in range(12)), (0,) * 12)
    alone, together = (Decoders(ImageDataset(samples, VIEW), threads) for threads in (1, 3))
    for one, other in zip(alone.images(batches(3, 4, 5)), together.images(batches(3, 4, 5)), strict=True):
        assert torch.equal(one, other)
