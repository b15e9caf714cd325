"""Who decodes: the process that trains, until it has been seen that others would pay for themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.transforms import Draw
from snowmelt_trainer.errors import RunError

MAX_PROCESSES = 8
START_UP = 5.0
"""Seconds that processes have to save: each imports torch, which takes some three, and fills a quarter of a GB."""
TIMED = 2
"""Batches that are timed before any is started. The first use of a batch is often a slow one."""

Keys = Sequence[int | Draw]
Clock = Callable[[], float]


def most_processes(cpus: float) -> int:
    """How many may decode for a worker that reserved `cpus`: one CPU is left for the training itself, so none on a
    single CPU.
    """
    return max(0, min(int(cpus) - 1, MAX_PROCESSES))


class Decoders:
    """Decodes a data set's images, batch by batch, and varies them where that is done one by one.

    One process has decoded small files before another has started, and large ones keep it from training. So its batches
    are timed, and so is what is done with them in between. Once what decoding has cost and will cost in the pass under
    way is more than it takes to start processes, as many are started as keep up with the images' use.
    """

    def __init__(self, dataset: ImageDataset, most: int, *, clock: Clock = time.perf_counter) -> None:
        """At `most` so many processes are started."""
        self._dataset, self._most, self._clock = dataset, most, clock
        self._spent, self._decoded = 0.0, 0
        self._use, self._uses = math.inf, 0
        """Seconds an image of the quickest use so far; how many there were."""
        self._batches = _Batches()
        self._others: DataLoader[Any] | None = None

    @property
    def seconds(self) -> float:
        """What an image took in this process, on average; 0 before the first."""
        return self._spent / self._decoded if self._decoded else 0.0

    def processes(self, images: int) -> int:
        """How many decode, or would in a pass over so many images; 0 where it is this one."""
        if self._others is not None:
            return self._others.num_workers
        saved = (self._spent + images * self.seconds) * self._most / (self._most + 1)
        if saved <= START_UP:
            return 0
        return min(self._most, max(1, math.ceil(self.seconds / self._use)))

    def images(self, batches: Sequence[Keys]) -> Iterator[Tensor]:
        """Each batch's, (N, 3, H, W) uint8. Ends whatever was being decoded before.

        Raises:
            RunError: as `ImageDataset` does.
        """
        left = sum(map(len, batches))
        for number, keys in enumerate(batches):
            if self._others is None and self._uses >= TIMED and (processes := self.processes(left)):
                self._others = self._started(processes)
            if self._others is not None:
                self._batches.keys = batches[number:]
                yield from map(_raised, self._others)
                return
            decoded = self._decode(keys)
            handed = self._clock()
            yield decoded
            self._used(self._clock() - handed, len(keys))
            left -= len(keys)

    def close(self) -> None:
        """Ends the processes, if any. They are started again when they pay again."""
        self._others, self._spent = None, 0.0

    def _decode(self, keys: Keys) -> Tensor:
        began = self._clock()
        images = _raised(self._dataset.collate(self._dataset.__getitems__(keys)))
        self._spent += self._clock() - began
        self._decoded += len(keys)
        return images.pin_memory() if torch.cuda.is_available() else images

    def _used(self, seconds: float, images: int) -> None:
        if images:
            self._use = min(self._use, seconds / images)
            self._uses += 1

    def _started(self, processes: int) -> DataLoader[Any]:
        dataset = self._dataset.divided(processes)
        return DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=dataset.collate,
            num_workers=processes,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="forkserver",  # fork copies the locks of Ray's and torch's threads
        )


class _Batches:
    """The batch sampler: what the next iteration is to decode."""

    def __init__(self) -> None:
        self.keys: Sequence[Keys] = []

    def __iter__(self) -> Iterator[list[int | Draw]]:
        return (list(batch) for batch in self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _raised(images: Tensor | RunError) -> Tensor:
    if isinstance(images, RunError):
        raise images
    return images
