"""BatchNorm's statistics, counted anew: where the images lie far from those that the network was pretrained on, and
before a stage that normalises by its batches (see `renewal`).

A network that was pretrained on other contrasts, colours or noise normalises by means and variances that do not hold
any more, in layers that stay frozen for most of a run. Counting them anew takes a pass over some images and no label
(adaptive batch normalisation, Li et al. 2016, arXiv 1603.04779). It does not help always, and no distance says when: so
a head is solved both ways on a few hundred images, and the validation images decide.
docs/design/20261126-statistics-anew.md has what was measured.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer.contract.optimization import NormStatistics
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.features import SomeImages, UnkeptFeatures, before_head, some_of
from snowmelt_trainer.training.head_start import HeadSolver, forget, linear_head
from snowmelt_trainer.training.precision import autocast
from snowmelt_trainer.training.rig import Rig

log = logging.getLogger(__name__)

FAR = 0.5
"""Standard deviations between the images and what was counted before, from which a recount is tried. Between images of
one kind it was 0.1 to 0.2; ones with another contrast, or as negatives, lay 0.6 to 1.5 apart."""
IMAGES = 512
"""Most training images that are counted, and most of training and of validation that the heads are compared on."""
STRENGTHS = 4
"""Of the heads' penalty, of which the best counts."""

_BatchNorm = nn.modules.batchnorm._BatchNorm


def adapt_statistics(rig: Rig) -> None:
    """Before a run's first stage. Where statistics are counted anew, all workers have the same ones, and status says
    so.

    The leading worker decides: it is a matter of seconds, and takes no part of the others.

    Raises:
        RunError: as `ImageDataset.square` does.
    """
    if not _concerned(rig):
        return
    found = rig.world.from_leader(_counted_anew(rig) if rig.world.leads else b"")
    if found:
        _put(rig.model, load_tensors(found))


@dataclass(frozen=True)
class Counted:
    """Statistics that were counted anew."""

    images: int
    """On how many; 0 where there are no statistics."""
    changed: bool
    features: tuple[Batch, ...]
    """What a linear head got meanwhile, normalised by the batch, as in training: (n, d) float32; labels; ids. None
    where the head is another, and on other workers than the leading one."""


def count_anew(rig: Rig, images: SomeImages) -> Counted:
    """Counts all statistics anew, on these images. All workers have the same ones, the leading one's.

    Raises:
        RunError: as `ImageDataset.square` does.
    """
    if not _statistics(rig.model) or len(images.ids) < 2:
        return Counted(images=0, changed=False, features=())
    before = _packed(rig.model)
    rig.model.eval()
    features = _count(rig, images) if rig.world.leads else []
    found = rig.world.from_leader(_packed(rig.model) if rig.world.leads else b"")
    _put(rig.model, load_tensors(found))
    return Counted(len(images.ids), found != before, tuple(features))


def _concerned(rig: Rig) -> bool:
    """Whether more than a first head will rely on what pretraining counted, and heads can be compared."""
    if rig.config.optimization.norm_statistics is NormStatistics.PRETRAINED or rig.config.backbone.from_scratch:
        return False
    if rig.config.unfreezing.target is None and rig.begins_to_adapt(1):
        return False  # nothing ends the run before `renewal` counts in any case
    frozen_first = len(rig.plan[0].trainable) < len(rig.groups)
    return frozen_first and bool(_statistics(rig.model)) and linear_head(before_head(rig)) is not None


def _counted_anew(rig: Rig) -> bytes:
    """The new statistics, as safetensors; empty where those of pretraining stay."""
    training, validation = some_of(rig, rig.train, IMAGES), some_of(rig, rig.validation, IMAGES)
    rig.model.eval()
    distance = _distance(rig, next(training.batches()))
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
        f"counted anew on {len(training.ids)} of them (optimization.normStatistics: Pretrained keeps the old ones)"
    )
    return _packed(rig.model)


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
def _count(rig: Rig, training: SomeImages) -> list[Batch]:
    """Each BatchNorm's mean and variance become the average over the batches, from nothing. What
    `torch.optim.swa_utils.update_bn` does, but that it would turn on dropout and stochastic depth as well.

    Gives what a linear head got.
    """
    cut = before_head(rig)
    linear = linear_head(cut) is not None
    seen: list[Batch] = []
    norms = [one for one in rig.model.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    memories = [one.momentum for one in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.train()
    with autocast(rig.precision, rig.world.device):
        for images, labels, ids in training.batches():
            if linear:
                seen.append((cut.features(images).float(), labels, ids))
            else:
                rig.model(images)
    for norm, memory in zip(norms, memories, strict=True):
        norm.momentum = memory
        norm.eval()
    return seen


def _loss_of_a_head(rig: Rig, training: SomeImages, validation: SomeImages) -> float:
    """The validation loss of the best of some heads that are solved on the network's features as it is now."""
    cut = before_head(rig)
    seen, unseen = UnkeptFeatures(training, cut).kept(), UnkeptFeatures(validation, cut).kept()
    head = nn.Linear(seen.features.shape[1], rig.classes).to(rig.world.device)
    forget(head)
    smoothing = rig.config.optimization.regularization.label_smoothing
    alone = World(device=rig.world.device)
    solver = HeadSolver(head, seen, alone, samples=len(seen.labels), label_smoothing=smoothing, tick=lambda: None)

    def loss_at(strength: int) -> float:
        solver.solve(strength)
        with torch.no_grad():
            return float(functional.cross_entropy(head(unseen.features), unseen.labels))

    return min(map(loss_at, range(STRENGTHS)))


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """What its BatchNorms have counted, as `model.state_dict()` names it."""
    return {
        f"{name}.{kind}": buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for kind, buffer in module.named_buffers(recurse=False)
    }


def _packed(model: nn.Module) -> bytes:
    """As safetensors."""
    return save_tensors({name: tensor.cpu().contiguous() for name, tensor in _statistics(model).items()})


@torch.no_grad()
def _put(model: nn.Module, statistics: dict[str, Tensor]) -> None:
    for name, buffer in _statistics(model).items():
        buffer.copy_(statistics[name])
