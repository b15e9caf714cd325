"""How the unfrozen parameters are trained."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from snowmelt_trainer.contract.base import Contract, Rule, not_supported_yet

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class OptimizerName(StrEnum):
    ADAMW = "AdamW"
    """Adam with decoupled weight decay."""
    SGD = "SGD"
    """Stochastic gradient descent with Nesterov momentum 0.9."""


class Schedule(StrEnum):
    ONE_CYCLE = "OneCycle"
    """Warm-up, then cosine decay, anew in each stage."""
    COSINE = "Cosine"
    """Cosine decay without warm-up, anew in each stage."""
    CONSTANT = "Constant"
    """The same learning rate throughout."""


class Precision(StrEnum):
    AUTO = "Auto"
    """BFloat16 on hardware that computes it natively and fast for this network, else Float32."""
    FLOAT32 = "Float32"
    """Single precision throughout."""
    BFLOAT16 = "BFloat16"
    """Autocast to bfloat16; parameters and the optimizer's state stay in float32."""


class CacheMode(StrEnum):
    AUTO = "Auto"
    """Cache where it was measured to pay, and changes nothing: without augmentation, or with as many `views` as asked
    for."""
    ALWAYS = "Always"
    """Cache wherever layers are frozen and the activations fit, whether or not it pays."""
    NEVER = "Never"
    """Compute the frozen layers' output anew in every epoch."""


class ActivationCache(Contract):
    """What the frozen layers make of the images, kept from epoch to epoch: they need not run again."""

    mode: CacheMode = CacheMode.AUTO
    """Whether activations are kept."""
    views: Annotated[int, Field(ge=1, le=64)] | None = None
    """How many augmented variations of each training image are kept; epoch e sees variation e modulo this. Absent
    means none with mode Auto, and with mode Always half as many as the stage has epochs, within bounds. Without
    augmentation it is always one."""
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """Most bytes that one worker keeps, in memory or on its local disk, a solver's copy of them included. Absent means
    what is free there, with room to spare."""

    rules = (
        Rule(
            field="mode",
            holds=lambda self: self.mode is not CacheMode.NEVER or (self.views is None and self.max_bytes is None),
            cel="!has(self.mode) || self.mode != 'Never' || (!has(self.views) && !has(self.maxBytes))",
            message="mode Never takes neither views nor maxBytes: remove them, or set mode: Auto",
        ),
    )


class HeadStart(StrEnum):
    AUTO = "Auto"
    """Solver where it can be used and its work is bounded, else Epochs."""
    SOLVER = "Solver"
    """Multinomial logistic regression by L-BFGS on the frozen layers' output for the images as they are, without
    augmentation and dropout; the penalty is on the weights of features that are whitened within the classes, and each
    epoch weakens it. Where the head is more than one linear layer, or the output does not fit into memory, ordinary
    epochs are trained, and a warning says so."""
    EPOCHS = "Epochs"
    """Ordinary epochs of the optimizer."""


class NormStatistics(StrEnum):
    AUTO = "Auto"
    """Where the images lie far from those of pretraining, BatchNorm's means and variances are counted anew before the
    first stage, on training images and without their labels, if a head solved on some images is the better for it on
    validation images; status says so. Else those of pretraining. Where the second stage trains everything, and no
    target may end the run before it, they are counted then, in any case, and not before."""
    PRETRAINED = "Pretrained"
    """Those of pretraining."""


def _off(field: str) -> Rule:
    return not_supported_yet(
        f"spec.optimization.regularization.{field}",
        field=field,
        holds=lambda self: getattr(self, field) == 0,
        cel=f"!has(self.{field}) || self.{field} == 0.0",
    )


class Regularization(Contract):
    """Guards against overfitting."""

    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Decoupled weight decay; never applied to biases, normalisation layers and other vectors."""
    dropout: Share = 0.0
    """Dropout before the new head's linear layer."""
    label_smoothing: Share = 0.1
    """Share of the label's probability spread over all classes."""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """MixUp's alpha. Not supported yet."""
    cutmix: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """CutMix's alpha. Not supported yet."""
    ema: Share | None = None
    """Decay of an exponential moving average of the trained weights, which is what is evaluated and delivered; 0 turns
    it off. Absent means chosen by Snowmelt, so that it averages over about half an epoch."""
    l2sp: Annotated[float, Field(ge=0.0, le=10.0, alias="l2sp")] = 0.0
    """Strength of the pull towards the pretrained weights. Not supported yet."""

    rules = (_off("mixup"), _off("cutmix"), _off("l2sp"))


class Optimization(Contract):
    """The optimizer, its learning rates and its guards."""

    optimizer: OptimizerName = OptimizerName.ADAMW
    """The optimizer."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    """The head's peak learning rate; layer groups below it decay from it by layerDecay. Absent means chosen by Snowmelt
    from the optimizer, the batch and the backbone."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Each layer group's learning rate is that of the next group towards the output, times this. Absent means 0.8, but
    1.0 in a stage that trains everything of a network with BatchNorm."""
    schedule: Schedule = Schedule.ONE_CYCLE
    """How the learning rate changes over a stage."""
    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """Images in one optimizer step, over all workers together. Absent means chosen by Snowmelt: 256, or fewer where the
    training data would give less than twelve steps an epoch."""
    precision: Precision = Precision.AUTO
    """The arithmetic of the forward and backward pass."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seeds the split, the head, the order of samples, augmentation and dropout."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Besides the end of each epoch, write a checkpoint every so many optimizer steps. With elastic workers and without
    a number here, one is written at least every 300 seconds."""
    regularization: Regularization = Regularization()
    """Guards against overfitting."""
    cache: ActivationCache = ActivationCache()
    """What the frozen layers make of the images, kept from epoch to epoch."""
    head_start: HeadStart = HeadStart.AUTO
    """How a first stage that trains the head alone finds it."""
    norm_statistics: NormStatistics = NormStatistics.AUTO
    """By what BatchNorm normalises in frozen layers, of a run whose first stage has any."""

    rules = (
        Rule(
            field="headStart",
            holds=lambda self: self.head_start is not HeadStart.SOLVER or self.cache.mode is not CacheMode.NEVER,
            cel="!has(self.headStart) || self.headStart != 'Solver' || !has(self.cache) || !has(self.cache.mode)"
            " || self.cache.mode != 'Never'",
            message="headStart Solver works on cached activations, which cache.mode Never excludes: change one of them",
        ),
    )
