"""Decoded images that stay where they are trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.rows import MemoryRows

HELD_SHARE = 0.1
"""Of an accelerator's free memory, how much images may fill: 60,000 of 224 px take 9 GB."""


class HeldPixels:
    """Squares of a data set on an accelerator with room for all of them, from when each was first there. On a
    processor, or without room, none is ever held."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self._samples, self._device = samples, device
        self._rows: MemoryRows | None = None

    def has(self, ids: Ids) -> bool:
        """Whether all of them are there."""
        return self._rows is not None and bool(self._rows.has(ids).all())

    def put(self, ids: Ids, squares: Tensor) -> None:
        """Keeps (n, 3, size, size) uint8, which lie on the accelerator already, where there is room."""
        if self._rows is None:
            if not len(squares) or not has_room(self._device, self._samples * squares[0].numel(), HELD_SHARE):
                return
            with torch.inference_mode(False):  # they outlive an evaluation
                self._rows = MemoryRows(squares[:1], samples=self._samples, rank=0, world=1, device=self._device)
        self._rows.put(ids, squares)

    def take(self, ids: Ids) -> Tensor:
        """A copy of what `has` says is there."""
        if self._rows is None:
            raise LookupError("no image is held")
        return self._rows.take(ids)
