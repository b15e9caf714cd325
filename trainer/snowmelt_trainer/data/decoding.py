"""Decoding, by as many threads as it is worth."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.images import QUICK, Pixels

MAX_THREADS = 16
AHEAD = 2
"""Batches that are decoded while an accelerator computes."""


def decoding_threads(cpus: float, device: torch.device) -> int:
    """How many may decode for a worker that reserved `cpus`: all of them where training waits meanwhile; beside an
    accelerator one less, which is for training itself.
    """
    return max(1, min(int(cpus) - (device.type != "cpu"), MAX_THREADS))


class Decoders:
    """Decodes a data set's images, batch by batch.

    Pillow lets go of Python's lock while it decodes, so two threads decode large files in half the time, and share the
    memory that the images stay in. Small ones take less time than threads do to hand them over: so each image is timed.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        threads: int,
        *,
        ahead: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """So many `threads` decode slow images, and `ahead` so many batches before they are asked for."""
        self._dataset, self._threads, self.ahead, self._clock = dataset, threads, ahead, clock
        self._each = 0.0
        """Seconds of a thread for an image of the newest batch."""

    @property
    def threads(self) -> int:
        """How many decode; 1 is the caller's own."""
        return self._threads if self._each > QUICK else 1

    @property
    def seconds(self) -> float:
        """What an image takes all of them; 0 before the first."""
        return self._each / self.threads

    def images(self, batches: Sequence[Ids]) -> Iterator[Tensor]:
        """Each batch's, (N, 3, H, W) uint8; none is empty.

        Raises:
            RunError: as `ImageDataset.square`.
        """
        coming: deque[Iterator[tuple[Pixels, float]]] = deque()
        for ids in batches:
            coming.append(self._begun(ids))
            if len(coming) > self.ahead:
                yield self._finished(coming.popleft())
        yield from map(self._finished, coming)

    def _begun(self, ids: Ids) -> Iterator[tuple[Pixels, float]]:
        one_by_one = self.threads == 1
        return (map if one_by_one else self._pool.map)(self._decode, ids.tolist())

    def _decode(self, sample: int) -> tuple[Pixels, float]:
        began = self._clock()
        return self._dataset.square(sample), self._clock() - began

    def _finished(self, decoding: Iterator[tuple[Pixels, float]]) -> Tensor:
        squares, seconds = zip(*decoding, strict=True)
        self._each = sum(seconds) / len(seconds)
        images = torch.from_numpy(np.stack(squares))
        return images.pin_memory() if torch.cuda.is_available() else images

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
