"""What the head gets of some images: the output of the layers before it as they are now, outside of any stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from snowmelt_trainer.backbones import Cut, split_at
from snowmelt_trainer.data.batches import parts
from snowmelt_trainer.data.loading import Batch, EvaluationLoader, TrainingLoader
from snowmelt_trainer.training.precision import autocast, place
from snowmelt_trainer.training.rig import Rig

BATCH = 64


@dataclass(frozen=True)
class SomeImages:
    """Some of a data set's images, as they are: without augmentation."""

    rig: Rig
    loader: TrainingLoader | EvaluationLoader
    ids: tuple[int, ...]

    def first(self, count: int) -> SomeImages:
        return replace(self, ids=self.ids[:count])

    def beyond(self, count: int) -> SomeImages:
        return replace(self, ids=self.ids[count:])

    def share(self) -> SomeImages:
        """This worker's."""
        return replace(self, ids=self.ids[self.rig.world.rank :: self.rig.world.size])

    def batches(self) -> Iterator[Batch]:
        """On the device, as the network takes them, in near-equal parts.

        Raises:
            RunError: as `ImageDataset.square` does.
        """
        device = self.rig.world.device
        chunks = [part.tolist() for part in parts(np.asarray(self.ids), BATCH)]
        for pixels, labels, ids in self.loader.load(chunks):
            yield place(pixels, device, self.rig.preprocessing), labels.to(device), ids


def some_of(rig: Rig, loader: TrainingLoader | EvaluationLoader, most: int) -> SomeImages:
    """So many at random, or all where there are fewer; the same in each attempt and on each worker."""
    order = np.random.default_rng(rig.config.optimization.seed).permutation(len(loader.dataset))
    return SomeImages(rig, loader, tuple(order[:most].tolist()))


@dataclass(frozen=True)
class Features:
    """Features (n, d) float32, labels (n,)."""

    features: Tensor
    labels: Tensor

    def whole(self) -> Iterator[Batch]:
        """What a solver reads."""
        yield self.features, self.labels, torch.arange(len(self.labels))

    @property
    def owned(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class UnkeptFeatures:
    """Features that are computed whenever they are read."""

    images: SomeImages
    cut: Cut

    @torch.no_grad()
    def whole(self) -> Iterator[Batch]:
        """What a solver reads, batch by batch. Raises as `SomeImages.batches`."""
        rig = self.images.rig
        for pixels, labels, ids in self.images.batches():
            with autocast(rig.precision, rig.world.device):
                features = self.cut.features(pixels)
            yield features.float(), labels, ids

    @property
    def owned(self) -> int:
        return len(self.images.ids)

    def kept(self) -> Features:
        """Of at least one image. Raises as `SomeImages.batches`."""
        rows = list(self.whole())
        return Features(torch.cat([one for one, _, _ in rows]), torch.cat([one for _, one, _ in rows]))


def before_head(rig: Rig) -> Cut:
    """The network cut where its head begins."""
    return split_at(rig.model, rig.groups, len(rig.groups) - 1)
