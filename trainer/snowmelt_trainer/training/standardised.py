"""What a solver goes through again and again: a worker's features, standardised by all workers' mean and deviation.

They are held in memory where a copy of them may lie there; else they are read for every pass anew, from where they are
kept, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training.distributed import World

ROWS = 4096
"""Looked at together, so that what is in between takes little memory."""
MOST_HELD = 2**30
"""Bytes of features that are held at most; a pass over as many takes a multiple of what reading them does."""
LEAST_DEVIATION = 1e-6

Blocks = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Features (n, d) float32 and labels (n,), for one pass."""


class Rows(Protocol):
    """Where a solver reads features from."""

    def whole(self) -> Iterable[Batch]:
        """This worker's training features, all of them, each once."""

    @property
    def owned(self) -> int:
        """How many these are."""


@runtime_checkable
class KeptRows(Rows, Protocol):
    """Those that can be read once more without being computed: a cache."""

    failure: str
    """Why they are not kept any more; empty while they are."""

    def again(self, most: int) -> Iterable[Batch]:
        """What `whole` gave, in parts of `most` at most."""


def held_bytes(rows: int, width: int) -> int:
    """What a copy of so many features of that width takes.

    >>> held_bytes(60_000, 512)
    122880000
    """
    return rows * width * 4


class StandardisedFeatures:
    """`mean` and `deviation`, (d,) float64, are those of all workers' features."""

    def __init__(self, rows: Rows, width: int, world: World, *, samples: int, room: int = MOST_HELD) -> None:
        """`samples` are all workers' features together; `room` is what a copy of this worker's may take, in bytes,
        where they can be read again. Workers need not have the same.

        Raises:
            RunError: as `rows` does.
        """
        self.rows, self.width, self._device = rows, width, world.device
        self._kept = rows if isinstance(rows, KeptRows) and held_bytes(rows.owned, width) > room else None
        self._held = self._read() if self._kept is None else None
        # A cache computes and keeps what it has not yet as it is read whole.
        first = [self._held] if self._held is not None else self._in_blocks(rows.whole())
        self.mean = world.sum(self._sum(first, Tensor.double)) / samples
        centre = self.mean.float()
        squares = self._sum(self._raw(), lambda rows: (rows - centre).double().square())
        self.deviation = (world.sum(squares) / samples).sqrt().clamp_min(LEAST_DEVIATION)
        if self._held is not None:
            self._standardise(self._held[0])

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them, as features (n, d) float32 and labels (n,): one block where they are held. Of others each lies
        where the one before did.

        Raises:
            RunError: as the rows do.
        """
        if self._kept is not None and self._kept.failure:
            self._kept, self._held = None, self._read()  # each pass would compute them anew
            self._standardise(self._held[0])
        for features, labels in self._raw():
            if self._held is None:
                self._standardise(features)
            yield features, labels

    def _raw(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is held, as it lies there; else what is kept, as it was computed."""
        if self._held is not None:
            yield self._held
        elif self._kept is not None:
            yield from self._in_blocks(self._kept.again(ROWS))

    def _in_blocks(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        memory = torch.empty(0, self.width, device=self._device)
        for some, labels, _ in batches:
            if len(labels) > len(memory):
                memory = torch.empty(len(labels), self.width, device=self._device)
            block = memory[: len(labels)]
            block.copy_(some)
            yield block, labels.to(self._device)

    def _read(self) -> tuple[Tensor, Tensor]:
        """All in memory, once."""
        features = torch.empty(self.rows.owned, self.width, device=self._device)
        labels = torch.empty(self.rows.owned, dtype=torch.int64, device=self._device)
        at = 0
        for some, theirs, _ in self.rows.whole():
            features[at : at + len(theirs)], labels[at : at + len(theirs)] = some, theirs
            at += len(theirs)
        return features, labels

    def _sum(self, blocks: Iterable[tuple[Tensor, Tensor]], of: Callable[[Tensor], Tensor]) -> Tensor:
        """Over all rows, some at a time: float64 of all of them would be twice what they take."""
        total = torch.zeros(self.width, dtype=torch.float64, device=self._device)
        for features, _ in blocks:
            for rows in torch.split(features, ROWS):
                total += of(rows).sum(0)
        return total

    def _standardise(self, block: Tensor) -> None:
        """In place."""
        block.sub_(self.mean.float()).div_(self.deviation.float())
