"""BatchNorm's statistics, counted anew where the images lie far from those that the network was pretrained on.

A network that was pretrained on other contrasts, colours or noise normalises by means and variances that do not hold
any more, in layers that stay frozen for most of a run. Counting them anew takes a pass over some images and no label
(adaptive batch normalisation, Li et al. 2016, arXiv 1603.04779). It does not help always, and no distance says when: so
a head is solved both ways on a few hundred images, and the validation images decide.
docs/design/20261126-statistics-anew.md has what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer.backbones import Cut, split_at
from snowmelt_trainer.contract.optimization import NormStatistics
from snowmelt_trainer.data.loading import Batch, ImageDataset
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.head_start import HeadSolver, linear_head
from snowmelt_trainer.training.precision import autocast, place
from snowmelt_trainer.training.rig import Rig

log = logging.getLogger(__name__)

FAR = 0.5
"""Standard deviations between the images and what was counted before, from which a recount is tried. Between images of
one kind it was 0.1 to 0.2; ones with another contrast, or as negatives, lay 0.6 to 1.5 apart."""
IMAGES = 512
"""Most training images that are counted, and most of training and of validation that the heads are compared on."""
BATCH = 64
STRENGTHS = 4
"""Of the heads' penalty, of which the best counts."""

_BatchNorm = nn.modules.batchnorm._BatchNorm


def adapt_statistics(rig: Rig) -> None:
    """Before a run's first stage. Where statistics are counted anew, all workers have the same ones, and status says
    so.

    The leading worker decides: it is a matter of seconds, and takes no part of the others.

    Raises:
        RunError: as `ImageDataset` does.
    """
    if not _concerned(rig):
        return
    found = rig.world.from_leader(_counted_anew(rig) if rig.world.leads else b"")
    if found:
        _put(rig.model, load_tensors(found))


def _concerned(rig: Rig) -> bool:
    """Whether a stage relies on what pretraining counted, and heads can be compared."""
    if rig.config.optimization.norm_statistics is NormStatistics.PRETRAINED or rig.config.backbone.from_scratch:
        return False
    frozen_first = len(rig.plan[0].trainable) < len(rig.groups)
    return frozen_first and bool(_statistics(rig.model)) and linear_head(_before_head(rig)) is not None


def _counted_anew(rig: Rig) -> bytes:
    """The new statistics, as safetensors; empty where those of pretraining stay."""
    training, validation = _some(rig, rig.train.dataset), _some(rig, rig.validation.dataset)
    rig.model.eval()
    distance = _distance(rig, next(_batches(rig, training)))
    if distance < FAR:
        return b""
    kept = {name: tensor.clone() for name, tensor in _statistics(rig.model).items()}
    before = _loss_of_a_head(rig, training, validation)
    _count(rig, training)
    after = _loss_of_a_head(rig, training, validation)
    log.info(
        "the images lie %.2f standard deviations off; a head's loss %.4f, counted anew %.4f", distance, before, after
    )
    if after >= before:
        _put(rig.model, kept)
        return b""
    rig.reporter.warn(
        f"the images lie {distance:.1f} standard deviations from those of pretraining: BatchNorm's statistics were "
        f"counted anew on {training.count} of them (optimization.normStatistics: Pretrained keeps the old ones)"
    )
    return save_tensors({name: tensor.cpu().contiguous() for name, tensor in _statistics(rig.model).items()})


@dataclass(frozen=True)
class _Some:
    """Some of a data set's images."""

    dataset: ImageDataset
    ids: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.ids)


def _some(rig: Rig, dataset: ImageDataset) -> _Some:
    """The same in each attempt."""
    order = np.random.default_rng(rig.config.optimization.seed).permutation(len(dataset))
    return _Some(dataset, tuple(order[:IMAGES].tolist()))


def _batches(rig: Rig, some: _Some) -> Iterator[Batch]:
    """The images as they are, without augmentation, on the device."""
    for start in range(0, some.count, BATCH):
        pixels, labels, ids = some.dataset.collate([some.dataset[i] for i in some.ids[start : start + BATCH]])  # type: ignore[misc]
        yield place(pixels, rig.world.device, rig.preprocessing), labels.to(rig.world.device), ids


@torch.no_grad()
def _distance(rig: Rig, batch: Batch) -> float:
    """How far the images' mean lies from the mean that the first BatchNorm has counted, in its standard deviations: the
    median over its channels."""
    found: list[float] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not found and isinstance(module.running_mean, Tensor) and isinstance(module.running_var, Tensor):
            mean = inputs[0].float().mean([dimension for dimension in range(inputs[0].dim()) if dimension != 1])
            found.append(float(((mean - module.running_mean).abs() / module.running_var.sqrt()).median()))

    hooks = [one.register_forward_pre_hook(look) for one in rig.model.modules() if isinstance(one, _BatchNorm)]
    try:
        with autocast(rig.precision, rig.world.device):
            rig.model(batch[0])
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else 0.0


@torch.no_grad()
def _count(rig: Rig, training: _Some) -> None:
    """Each BatchNorm's mean and variance become the average over the batches, from nothing. What
    `torch.optim.swa_utils.update_bn` does, but that it would turn on dropout and stochastic depth as well."""
    norms = [one for one in rig.model.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    memories = [one.momentum for one in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.train()
    with autocast(rig.precision, rig.world.device):
        for images, _, _ in _batches(rig, training):
            if len(images) > 1:
                rig.model(images)
    for norm, memory in zip(norms, memories, strict=True):
        norm.momentum = memory
        norm.eval()


def _loss_of_a_head(rig: Rig, training: _Some, validation: _Some) -> float:
    """The validation loss of the best of some heads that are solved on the network's features as it is now."""
    cut = _before_head(rig)
    seen, unseen = _features(rig, cut, training), _features(rig, cut, validation)
    head = nn.Linear(seen.features.shape[1], rig.classes).to(rig.world.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    smoothing = rig.config.optimization.regularization.label_smoothing
    alone = World(device=rig.world.device)
    solver = HeadSolver(head, seen, alone, samples=len(seen.labels), label_smoothing=smoothing, tick=lambda: None)

    def loss_at(strength: int) -> float:
        solver.solve(strength)
        with torch.no_grad():
            return float(functional.cross_entropy(head(unseen.features), unseen.labels))

    return min(map(loss_at, range(STRENGTHS)))


@dataclass(frozen=True)
class _Features:
    """What the head would get: features (n, d) float32, labels (n,)."""

    features: Tensor
    labels: Tensor

    def whole(self) -> Iterator[Batch]:
        """What a solver reads."""
        yield self.features, self.labels, torch.arange(len(self.labels))


@torch.no_grad()
def _features(rig: Rig, cut: Cut, some: _Some) -> _Features:
    with autocast(rig.precision, rig.world.device):
        rows = [(cut.features(images).float(), labels) for images, labels, _ in _batches(rig, some)]
    return _Features(torch.cat([one for one, _ in rows]), torch.cat([one for _, one in rows]))


def _before_head(rig: Rig) -> Cut:
    return split_at(rig.model, rig.groups, len(rig.groups) - 1)


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """What its BatchNorms have counted, as `model.state_dict()` names it."""
    return {
        f"{name}.{kind}": buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for kind, buffer in module.named_buffers(recurse=False)
    }


@torch.no_grad()
def _put(model: nn.Module, statistics: dict[str, Tensor]) -> None:
    for name, buffer in _statistics(model).items():
        buffer.copy_(statistics[name])
