"""A set of images as torch's DataLoader takes it: pixels by sample id, in any process."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import Draw, View
from snowmelt_trainer.errors import RunError

KEPT_BYTES = 1 << 30
"""Memory of one process that decoded images may fill."""


class ImageDataset(Dataset[Tensor]):
    """Images (3, H, W) uint8: `dataset[i]` for evaluation, `dataset[Draw(i, stage, epoch)]` for training, with what is
    varied of it one image at a time.

    Where images are varied so, the squares of the first samples, as many as fit into `kept_bytes`, stay here once
    decoded, bit for bit what would be decoded again. Otherwise a loader keeps them (`HeldPixels`), for which they need
    not be in the process that decodes.
    """

    def __init__(self, samples: SampleSet, view: View, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.samples = samples
        self.view = view
        self.keeps = kept_bytes // (3 * view.image_size**2)
        """How many of the first samples stay in memory."""
        self._squares: dict[int, Tensor] = {}

    def divided(self, processes: int) -> ImageDataset:
        """The same for one of so many processes, which fill the memory together; none of it is filled yet."""
        one = copy(self)
        one.keeps, one._squares = self.keeps // processes, {}
        return one

    @cached_property
    def labels(self) -> Tensor:
        """All labels by sample id, (len,) int64."""
        return torch.tensor(self.samples.labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Draw) -> Tensor:
        """Raises RunError (CorruptImage, DataNotFound, DataUnreadable) when the file has changed since it was
        inspected.
        """
        if isinstance(key, Draw):
            return self.view.varied(self._square(key.sample), key)
        return self._square(key)

    def __getitems__(self, keys: Sequence[int | Draw]) -> list[Tensor] | RunError:
        """What DataLoader calls. A RunError is handed over as a value, because DataLoader would rebuild it from its
        text alone.
        """
        try:
            return [self[key] for key in keys]
        except RunError as error:
            return error

    def collate(self, images: list[Tensor] | RunError) -> Tensor | RunError:
        """Images as one batch (N, 3, H, W)."""
        if isinstance(images, RunError):
            return images
        return torch.stack(images)

    @property
    def none(self) -> Tensor:
        """A batch of no image."""
        return torch.empty(0, 3, self.view.image_size, self.view.image_size, dtype=torch.uint8)

    def _square(self, sample: int) -> Tensor:
        square = self._squares.get(sample)
        if square is None:
            square = self.view.square(self.samples.paths[sample])
            if self.view.varies_one_by_one and sample < self.keeps:
                self._squares[sample] = square
        return square
