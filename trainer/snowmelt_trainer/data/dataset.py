"""The images of one split, as pixels."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from snowmelt_trainer.data.images import Pixels
from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import View

KEPT_BYTES = 1 << 30
"""Memory of one process that decoded images may fill."""


class ImageDataset:
    """Samples, and how they are seen."""

    def __init__(self, samples: SampleSet, view: View, *, kept_bytes: int = KEPT_BYTES) -> None:
        """As many of the first samples as fit into `kept_bytes` may stay in the host's memory once decoded."""
        self.samples = samples
        self.view = view
        self.keeps = kept_bytes // (3 * view.image_size**2)
        """How many these are."""

    @cached_property
    def labels(self) -> Tensor:
        """All labels by sample id, (len,) int64."""
        return torch.tensor(self.samples.labels, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def square(self, sample: int) -> Pixels:
        """The sample's, (3, H, W), decoded from its file.

        Raises:
            RunError: CorruptImage, DataNotFound or DataUnreadable, when the file has changed since it was inspected.
        """
        return self.view.square(self.samples.paths[sample])
