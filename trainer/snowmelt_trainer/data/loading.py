"""Loaders that can start at any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.data.batches import Ids, epoch_order, evaluation_shard, owned_shard, shard, steps_per_epoch
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.decoding import AHEAD, Decoders
from snowmelt_trainer.data.held import HeldPixels
from snowmelt_trainer.data.rows import Flags
from snowmelt_trainer.data.transforms import Draw

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (N, 3, H, W) uint8, or features of them; labels (N,) int64; sample ids (N,) int64. N may be 0."""
Keys = Sequence[int | Draw]
"""A batch: samples as they are, or as they are varied in one epoch."""

_CPU = torch.device("cpu")


class _Loader:
    """Batches of a data set on the device that trains. A square that was decoded once stays in memory, as far as that
    goes.
    """

    def __init__(self, dataset: ImageDataset, threads: int, device: torch.device) -> None:
        self.dataset = dataset
        self._device = device
        self._decoders = Decoders(dataset, threads, ahead=0 if device.type == "cpu" else AHEAD)

    @cached_property
    def _held(self) -> HeldPixels:
        return HeldPixels(len(self.dataset), self._device, host=self.dataset.keeps)

    def wait(self, use: float) -> float:
        """Seconds that an image is waited for, on average over the data set, if all are loaded once more: held ones
        come at once, and where an accelerator takes `use` seconds for each, others are decoded meanwhile."""
        decoding = self._decoders.seconds - (use if self._decoders.ahead else 0.0)
        return max(0.0, decoding) * (1 - self._held.most / len(self.dataset))

    def load(self, batches: Sequence[Keys]) -> Iterator[Batch]:
        """These samples, batch by batch; the draws of a batch are of one epoch. Raises RunError as
        `ImageDataset.square` does.
        """
        ids = [_ids(keys) for keys in batches]
        absent = [~self._held.has(one) for one in ids]
        wanted = [one[away] for one, away in zip(ids, absent, strict=True) if away.any()]
        return self._batches(batches, ids, absent, self._decoders.images(wanted))

    def _batches(
        self, batches: Sequence[Keys], ids: Sequence[Ids], absent: Sequence[Flags], decoded: Iterator[Tensor]
    ) -> Iterator[Batch]:
        for keys, one, away in zip(batches, ids, absent, strict=True):
            squares = self._squares(one, away, decoded)
            draws = [key for key in keys if isinstance(key, Draw)]
            index = torch.from_numpy(one)
            yield self.dataset.view.varied(squares, draws, len(self.dataset)), self.dataset.labels[index], index

    def _squares(self, ids: Ids, absent: Flags, decoded: Iterator[Tensor]) -> Tensor:
        """Of these, the absent ones are decoded next."""
        if not len(ids):
            size = self.dataset.view.image_size
            return torch.empty(0, 3, size, size, dtype=torch.uint8, device=self._device)
        if not absent.any():
            return self._held.take(ids)
        brought = self._held.bring(ids[absent], next(decoded))
        if absent.all():
            return brought
        squares = brought.new_empty(len(ids), *brought.shape[1:])
        squares[torch.from_numpy(absent)] = brought
        squares[torch.from_numpy(~absent)] = self._held.take(ids[~absent])
        return squares


class TrainingLoader(_Loader):
    """One worker's share of the training epochs."""

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        global_batch: int,
        rank: int,
        world: int,
        threads: int = 1,
        device: torch.device = _CPU,
    ) -> None:
        super().__init__(dataset, threads, device)
        self._samples = len(dataset)
        self._seed, self.global_batch, self._rank, self._world = seed, global_batch, rank, world

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch, the same on every worker."""
        return steps_per_epoch(self._samples, self.global_batch)

    def epoch(self, stage: int, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """The epoch's batches from `start_step` on; they depend on no earlier call. Raises RunError as
        `ImageDataset.square` does.
        """
        order = epoch_order(self._samples, seed=self._seed, stage=stage, epoch=epoch)
        steps = range(start_step, self.steps)
        shares = (shard(order, step, self.global_batch, self._rank, self._world) for step in steps)
        return self.load([[Draw(i, stage, epoch) for i in share.tolist()] for share in shares])

    def owned(self, stage: int, epoch: int, *, start_step: int, at_least: int) -> list[Ids]:
        """The samples of each step from `start_step` on, divided as `owned_shard` has it instead; nothing is loaded."""
        order = epoch_order(self._samples, seed=self._seed, stage=stage, epoch=epoch)
        return [
            owned_shard(order, step, self.global_batch, self._rank, self._world, at_least=at_least)
            for step in range(start_step, self.steps)
        ]


class EvaluationLoader(_Loader):
    """One worker's share of an evaluation: every sample once over all workers, none padded. May be iterated any
    number of times.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        batch: int,
        rank: int,
        world: int,
        threads: int = 1,
        device: torch.device = _CPU,
    ) -> None:
        super().__init__(dataset, threads, device)
        ids = list(evaluation_shard(len(dataset), rank, world))
        self.batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
        """The ids of this worker's samples."""

    def __iter__(self) -> Iterator[Batch]:
        """Raises RunError as `ImageDataset.square` does."""
        return self.load(self.batches)


def _ids(keys: Keys) -> Ids:
    return np.array([key.sample if isinstance(key, Draw) else key for key in keys], dtype=np.int64)
