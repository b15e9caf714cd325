"""Rows of anything by sample id, in memory, the host's or an accelerator's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snowmelt_trainer.data.batches import Ids

Flags = npt.NDArray[np.bool_]
_CPU = torch.device("cpu")


class MemoryRows:
    """The rows of the samples that one worker owns: those with id modulo `world` equal to `rank`."""

    def __init__(self, like: Tensor, *, samples: int, rank: int, world: int, device: torch.device = _CPU) -> None:
        own = len(range(rank, samples, world))
        self._rank, self._world = rank, world
        self._filled: Flags = np.zeros(own, dtype=np.bool_)
        self._values = torch.empty((own, *like.shape[1:]), dtype=like.dtype, device=device)
        self.device = device
        self.row_bytes = like[:1].numel() * like.element_size()

    def has(self, ids: Ids) -> Flags:
        own = ids % self._world == self._rank
        found: Flags = own & self._filled[np.where(own, ids // self._world, 0)]
        return found

    def put(self, ids: Ids, values: Tensor) -> None:
        places = ids // self._world
        self._values.index_copy_(0, self._index(places), values.to(self._values.device))
        self._filled[places] = True

    def take(self, ids: Ids) -> Tensor:
        return self._values.index_select(0, self._index(ids // self._world))

    def _index(self, places: Ids) -> Tensor:
        return torch.from_numpy(places).to(self._values.device, non_blocking=True)

    def close(self) -> None:
        self._values = self._values.new_empty(0)
        self._filled[:] = False
