"""Datasets over sample sets, and loaders that can start at any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from snowmelt_trainer.data.batches import Ids, epoch_order, evaluation_shard, owned_shard, shard, steps_per_epoch
from snowmelt_trainer.data.held import HeldPixels
from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import Draw, View
from snowmelt_trainer.errors import RunError

Sample = tuple[Tensor, int, int]
"""Image (3, H, W) uint8; label; sample id."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Images (N, 3, H, W) uint8, or features of them; labels (N,) int64; sample ids (N,) int64. N may be 0."""

_CPU = torch.device("cpu")
CACHE_BYTES = 1 << 30
"""Memory of one process that decoded images may fill."""
MAX_PROCESSES = 8
WORTH_PROCESSES = 4096
"""Fewer samples are loaded in the caller's process: starting others takes seconds, and they share no cache."""


class ImageDataset(Dataset[Sample]):
    """Samples as pixels: `dataset[i]` for evaluation, `dataset[Draw(i, stage, epoch)]` for training, with what is
    varied of it one image at a time.

    The squares of the first samples, as many as fit into `cache_bytes`, stay in memory once decoded, so a small data
    set is decoded once. A cached sample is bit for bit the one that would be decoded again.
    """

    def __init__(self, samples: SampleSet, view: View, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.samples = samples
        self.view = view
        self.keeps = cache_bytes // (3 * view.image_size**2)
        """How many of the first samples stay in memory."""
        self._squares: dict[int, Tensor] = {}

    @cached_property
    def labels(self) -> Tensor:
        """All labels by sample id, (len,) int64."""
        return torch.tensor(self.samples.labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Draw) -> Sample:
        """Raises RunError (CorruptImage, DataNotFound, DataUnreadable) when the file has changed since it was
        inspected.
        """
        if isinstance(key, Draw):
            return self.view.varied(self._square(key.sample), key), self.samples.labels[key.sample], key.sample
        return self._square(key), self.samples.labels[key], key

    def __getitems__(self, keys: Sequence[int | Draw]) -> list[Sample] | RunError:
        """What DataLoader calls. A RunError is handed over as a value, because DataLoader would rebuild it from its
        text alone.
        """
        try:
            return [self[key] for key in keys]
        except RunError as error:
            return error

    def collate(self, samples: list[Sample] | RunError) -> Batch | RunError:
        """Samples as one batch, which may be empty."""
        if isinstance(samples, RunError):
            return samples
        size = self.view.image_size
        images = (
            torch.stack([image for image, _, _ in samples])
            if samples
            else torch.empty(0, 3, size, size, dtype=torch.uint8)
        )
        return (
            images,
            torch.tensor([s[1] for s in samples], dtype=torch.int64),
            torch.tensor([s[2] for s in samples], dtype=torch.int64),
        )

    def _square(self, sample: int) -> Tensor:
        square = self._squares.get(sample)
        if square is None:
            square = self.view.square(self.samples.paths[sample])
            if sample < self.keeps:
                self._squares[sample] = square
        return square


class _Loader:
    """Batches of a data set on the device that trains. Its processes, if any, live as long as it does: close it by
    letting it go.
    """

    def __init__(self, dataset: ImageDataset, processes: int, device: torch.device) -> None:
        self.dataset = dataset
        self._steps = _Steps()
        self._loader = _data_loader(dataset, self._steps, processes)
        self.processes: int = self._loader.num_workers
        self._device = device
        self._held = HeldPixels(len(dataset), device)

    def load(self, batches: Sequence[Sequence[int | Draw]]) -> Iterator[Batch]:
        """These samples, batch by batch; the draws of a batch are of one epoch. Ends whatever was being loaded before.
        Raises RunError as `ImageDataset` does.
        """
        ids = [_ids(keys) for keys in batches]
        held = [self._held.has(one) for one in ids]
        self._steps.batches = [
            keys if self.dataset.view.varies_one_by_one else one.tolist()
            for keys, one, here in zip(batches, ids, held, strict=True)
            if not here
        ]
        return self._batches(batches, ids, held)

    def _batches(
        self, batches: Sequence[Sequence[int | Draw]], ids: Sequence[Ids], held: Sequence[bool]
    ) -> Iterator[Batch]:
        loaded = _images(self._loader)
        for keys, one, here in zip(batches, ids, held, strict=True):
            images = self._held.take(one) if here else self._brought(one, next(loaded))
            draws = [key for key in keys if isinstance(key, Draw)]
            index = torch.from_numpy(one)
            yield (
                self.dataset.view.varied_batch(images, draws, len(self.dataset)),
                self.dataset.labels[index],
                index,
            )

    def _brought(self, ids: Ids, images: Tensor) -> Tensor:
        there = images.to(self._device, non_blocking=True)
        if not self.dataset.view.varies_one_by_one:
            self._held.put(ids, there)
        return there


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
        processes: int = 0,
        device: torch.device = _CPU,
    ) -> None:
        super().__init__(dataset, processes, device)
        self._samples = len(dataset)
        self._seed, self.global_batch, self._rank, self._world = seed, global_batch, rank, world

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch, the same on every worker."""
        return steps_per_epoch(self._samples, self.global_batch)

    def epoch(self, stage: int, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """The epoch's batches from `start_step` on; they depend on no earlier call. Raises RunError as `ImageDataset`
        does.
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
        processes: int = 0,
        device: torch.device = _CPU,
    ) -> None:
        super().__init__(dataset, processes, device)
        ids = list(evaluation_shard(len(dataset), rank, world))
        self.batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
        """The ids of this worker's samples."""

    def __iter__(self) -> Iterator[Batch]:
        """Raises RunError as `ImageDataset` does."""
        return self.load(self.batches)


def loader_processes(cpus: float) -> int:
    """How many processes load images for a worker that reserved `cpus`: one CPU is left for the training itself, so
    none on a single CPU.
    """
    return max(0, min(int(cpus) - 1, MAX_PROCESSES))


class _Steps:
    """The batch sampler: what the next iteration is to load."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int | Draw]] = []

    def __iter__(self) -> Iterator[list[int | Draw]]:
        return (list(batch) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _data_loader(dataset: ImageDataset, batches: _Steps, processes: int) -> DataLoader[Any]:
    if len(dataset) < WORTH_PROCESSES:
        processes = 0
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collate,
        num_workers=processes,
        persistent_workers=processes > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="forkserver"
        if processes
        else None,  # fork copies the locks of Ray's and torch's threads
    )


def _images(loader: DataLoader[Any]) -> Iterator[Tensor]:
    for batch in loader:
        if isinstance(batch, RunError):
            raise batch
        yield batch[0]


def _ids(keys: Sequence[int | Draw]) -> Ids:
    return np.array([key.sample if isinstance(key, Draw) else key for key in keys], dtype=np.int64)
