"""Decoded images that stay in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.rows import Flags, MemoryRows

HELD_SHARE = 0.1
"""Of an accelerator's free memory, how much images may fill: 60,000 of 224 px take 9 GB."""
_CPU = torch.device("cpu")


class HeldPixels:
    """Squares of a data set, from when each was first there: all of them on an accelerator with room for them, or else
    those of the first samples, in the host's memory."""

    def __init__(self, samples: int, device: torch.device, *, host: int) -> None:
        """`host` is how many the host's memory may take."""
        self._samples, self._device = samples, device
        self._rows: MemoryRows | None = None
        self.most = min(samples, host)
        """How many are held in the end."""

    def has(self, ids: Ids) -> Flags:
        """Which of them are there, (n,)."""
        if self._rows is None:
            return np.zeros(len(ids), dtype=np.bool_)
        may = ids < self.most
        found: Flags = may & self._rows.has(np.where(may, ids, 0))
        return found

    def bring(self, ids: Ids, squares: Tensor) -> Tensor:
        """Keeps what it may of squares, (n, 3, size, size) uint8 in the host's memory, n > 0; gives all, on the
        device."""
        if self._rows is None:
            self._rows = self._allocated(squares[:1])
        brought = squares.to(self._device, non_blocking=True)
        may = ids < self.most
        if self._rows is not None and may.any():
            kept = brought if self._rows.device == self._device else squares
            self._rows.put(ids[may], kept if may.all() else kept[torch.from_numpy(may)])
        return brought

    def take(self, ids: Ids) -> Tensor:
        """A copy of what `has` says is there, on the device."""
        if self._rows is None:
            raise LookupError("no image is held")
        taken = self._rows.take(ids)
        if taken.device.type != self._device.type:
            taken = taken.pin_memory().to(self._device, non_blocking=True)
        return taken

    def _allocated(self, like: Tensor) -> MemoryRows | None:
        device = _CPU
        if has_room(self._device, self._samples * like.numel(), HELD_SHARE):
            device, self.most = self._device, self._samples
        if not self.most:
            return None
        with torch.inference_mode(False):  # they outlive an evaluation
            return MemoryRows(like, samples=self.most, rank=0, world=1, device=device)
