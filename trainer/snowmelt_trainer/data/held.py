"""Decoded images that stay where they are trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.data.batches import Ids

HELD_SHARE = 0.1
"""Of an accelerator's free memory, how much images may fill: 60,000 of 224 px take 9 GB."""


class HeldPixels:
    """Squares of a data set on an accelerator with room for all of them, from when each was first there. On a
    processor, or without room, none is ever held."""

    def __init__(self, samples: int, size: int, device: torch.device) -> None:
        self._shape, self._device = (samples, 3, size, size), device
        self._filled = np.zeros(samples, dtype=np.bool_)
        self._pixels: Tensor | None = None

    def has(self, ids: Ids) -> bool:
        """Whether all of them are there."""
        return len(ids) > 0 and bool(self._filled[ids].all())

    def put(self, ids: Ids, squares: Tensor) -> None:
        """Keeps (n, 3, size, size) uint8, which lie on the accelerator already, where there is room."""
        with torch.inference_mode(False):  # they outlive an evaluation
            if self._pixels is None:
                if not has_room(self._device, int(np.prod(self._shape)), HELD_SHARE):
                    return
                self._pixels = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
            self._pixels.index_copy_(0, self._index(ids), squares)
        self._filled[ids] = True

    def take(self, ids: Ids) -> Tensor:
        """A copy of what `has` says is there."""
        if self._pixels is None:
            raise LookupError("no image is held")
        return self._pixels.index_select(0, self._index(ids))

    def _index(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids).to(self._device, non_blocking=True)
