"""Running the frozen prefix, and comparing what it gives with what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.data.transforms import Draw
from snowmelt_trainer.training.activations.rows import Rows
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import autocast, place

Load = Callable[[Sequence[Sequence[int | Draw]]], Iterator[Batch]]
CHECKED = 4
"""Rows of a view that are computed once more and compared."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Largest difference between a kept value and its recomputation, as a share of the largest value, on a CPU: results
depend a little on how many images are computed at a time."""
COARSE_TOLERANCE = 5e-2
"""The same where 16-bit types are computed with, also if the last layer's output is none, such as LayerNorm's."""
CUDA_TOLERANCE = 5e-3
"""The same for 32-bit types on CUDA, where convolutions may use TF32."""


@dataclass(frozen=True)
class Prefix:
    """The frozen prefix as a function on batches."""

    module: nn.Module
    precision: Precision
    world: World
    preprocessing: Preprocessing

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Its output for images, or for earlier features, in whatever precision the suffix would have got it, on this
        worker's device."""
        with autocast(self.precision, self.world.device):
            features: Tensor = self.module(place(images, self.world.device, self.preprocessing))
        return features


@dataclass(frozen=True)
class View:
    """One variation of a data set, on one worker."""

    name: str
    """For messages: `view 1`, `validation`."""
    key: str
    samples: int
    """In the data set, over all workers."""
    chunks: tuple[Ids, ...]
    """The samples that this worker owns, in the portions in which they are computed."""
    turn: Callable[[int], int | Draw]
    """What the loader takes for a sample."""
    load: Load

    @property
    def ids(self) -> Ids:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, dtype=np.int64)

    def missing(self, rows: Rows) -> list[Ids]:
        """The chunks that are not wholly there, without what is there of them."""
        absent = [chunk[~rows.has(chunk)] for chunk in self.chunks]
        return [chunk for chunk in absent if len(chunk)]

    def images(self, chunks: Sequence[Ids]) -> Iterator[Tensor]:
        """The images of these samples in this view, chunk by chunk."""
        for images, _, _ in self.load([[self.turn(i) for i in chunk.tolist()] for chunk in chunks]):
            yield images


def spot_check(view: View, rows: Rows, prefix: Prefix) -> str:
    """Computes a few of the view's rows once more; says what differs, or nothing.

    Which rows is a function of the view's key.
    """
    ids = view.ids
    chosen = np.random.default_rng(int(view.key[:16], 16)).permutation(ids)[:CHECKED]
    if not len(chosen):
        return ""
    kept = rows.take(chosen).cpu().float()
    fresh = torch.cat([prefix(images).cpu() for images in view.images([chosen])])
    difference = float((kept - fresh.float()).abs().max() / fresh.float().abs().max().clamp_min(1e-12))
    allowed = _tolerance(fresh.dtype, prefix)
    if difference <= allowed:  # NaN is not
        return ""
    return f"kept activations of {view.name} differ from their recomputation by {difference:.2g} (of {allowed:.0e})"


def _tolerance(dtype: torch.dtype, prefix: Prefix) -> float:
    if dtype not in TOLERANCE or prefix.precision is Precision.BFLOAT16:
        return COARSE_TOLERANCE
    return CUDA_TOLERANCE if prefix.world.device.type == "cuda" else TOLERANCE[dtype]
