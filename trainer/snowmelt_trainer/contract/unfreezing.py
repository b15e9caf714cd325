"""How much of the backbone is trained, in which order, and what ends a stage."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from snowmelt_trainer.contract.base import Contract, Rule, not_supported_yet

GroupPattern = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Strategy(StrEnum):
    HEAD_ONLY = "HeadOnly"
    """Train the new classifier head alone."""
    GRADUAL = "Gradual"
    """Head first, then more layer groups, in `maxStages` stages, while the target is not met."""
    FULL = "Full"
    """Train every layer from the start."""
    LINEAR_PROBE_THEN_FINE_TUNE = "LinearProbeThenFineTune"
    """Head first, then everything (Kumar et al. 2022, arXiv 2202.10054)."""
    SURGICAL = "Surgical"
    """Train the layer groups whose gradients are largest for their weights. Not supported yet."""
    CUSTOM = "Custom"
    """The stages listed in `stages`."""


class Order(StrEnum):
    OUTPUT_FIRST = "OutputFirst"
    """Unfreeze from the output towards the input."""
    INPUT_FIRST = "InputFirst"
    """Unfreeze from the input towards the output; the head, being new, is always trained."""
    AUTO = "Auto"
    """Decide by measurement. Not supported yet."""


class Metric(StrEnum):
    ACCURACY = "accuracy"
    """Share of images classified rightly."""
    BALANCED_ACCURACY = "balancedAccuracy"
    """Mean over the classes of the share classified rightly."""
    LOSS = "loss"
    """Mean cross-entropy; lower is better, so a target uses atMost."""


class FrozenBatchNorm(StrEnum):
    EVAL = "Eval"
    """BatchNorm layers normalise with, and keep, their pretrained statistics, in trained layers, too; they adapt them
    where everything is trained, or was never trained before."""
    TRAIN = "Train"
    """BatchNorm layers go on adapting their statistics. Not supported yet."""


class Target(Contract):
    """What counts as good enough, measured on the validation data. Training stops as soon as it is reached."""

    metric: Metric = Metric.ACCURACY
    """The validation metric."""
    at_least: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """For accuracy and balancedAccuracy: stop at this value or above."""
    at_most: Annotated[float, Field(ge=0.0)] | None = None
    """For loss: stop at this value or below."""

    rules = (
        Rule(
            field="atLeast",
            holds=lambda self: self.metric is Metric.LOSS or (self.at_least is not None and self.at_most is None),
            cel="self.metric == 'loss' || (has(self.atLeast) && !has(self.atMost))",
            message="accuracy and balancedAccuracy take atLeast, and no atMost: set atLeast",
        ),
        Rule(
            field="atMost",
            holds=lambda self: self.metric is not Metric.LOSS or (self.at_most is not None and self.at_least is None),
            cel="self.metric != 'loss' || (has(self.atMost) && !has(self.atLeast))",
            message="loss takes atMost, and no atLeast: set atMost",
        ),
    )

    def met_by(self, value: float) -> bool:
        """Whether a measured value of `metric` is good enough."""
        if self.metric is Metric.LOSS:
            return self.at_most is not None and value <= self.at_most
        return self.at_least is not None and value >= self.at_least


class StageLimits(Contract):
    """What ends a stage."""

    max_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Most epochs in one stage. Without a number, 6; but 5 where everything is trained after the head, and 2 between
    the first and the last stage of strategy Gradual."""
    patience: Annotated[int, Field(ge=1, le=1_000)] = 2
    """Epochs without improvement of the validation metric after which the stage ends, not counting those before
    the schedule has brought the learning rate down to half its peak."""
    min_delta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """By how much the metric must improve to count as an improvement."""


class CustomStage(Contract):
    """One stage of strategy Custom."""

    unfreeze: Annotated[tuple[GroupPattern, ...], Field(min_length=1, max_length=64)]
    """Names of the layer groups trained in this stage (`snowmelt plan` shows them), or patterns such as layer*."""
    max_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Most epochs of this stage, instead of stage.maxEpochs."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    """The head's learning rate in this stage, instead of optimization.learningRate."""


class Unfreezing(Contract):
    """Progressive unfreezing: train few layers, evaluate, unfreeze more while the result is not good enough."""

    strategy: Strategy = Strategy.GRADUAL
    """Which layers are trained, stage by stage."""
    order: Order = Order.OUTPUT_FIRST
    """From which end the backbone is unfrozen."""
    target: Target | None = None
    """What counts as good enough. Without one, every planned stage runs."""
    stage: StageLimits = StageLimits()
    """What ends each stage."""
    max_stages: Annotated[int, Field(ge=1, le=64)] | None = None
    """Most stages of strategy Gradual, of which the first trains the head and the last everything; layer groups are
    unfrozen several at a time where there are more of them. Without a number, 3 with a target or an order of
    InputFirst, else 2: where nothing ends the job before everything is trained, a stage in between delays it."""
    stages: Annotated[tuple[CustomStage, ...], Field(max_length=64)] = ()
    """The stages of strategy Custom, in order."""
    batch_norm: FrozenBatchNorm = FrozenBatchNorm.EVAL
    """What BatchNorm does with its statistics."""

    rules = (
        Rule(
            field="stages",
            holds=lambda self: (self.strategy is Strategy.CUSTOM) == bool(self.stages),
            cel="(has(self.strategy) && self.strategy == 'Custom') == (has(self.stages) && size(self.stages) > 0)",
            message="stages are given exactly when strategy is Custom: set strategy: Custom, or remove stages",
        ),
        not_supported_yet(
            "spec.unfreezing.strategy Surgical",
            field="strategy",
            holds=lambda self: self.strategy is not Strategy.SURGICAL,
            cel="!has(self.strategy) || self.strategy != 'Surgical'",
        ),
        not_supported_yet(
            "spec.unfreezing.order Auto",
            field="order",
            holds=lambda self: self.order is not Order.AUTO,
            cel="!has(self.order) || self.order != 'Auto'",
        ),
        not_supported_yet(
            "spec.unfreezing.batchNorm Train",
            field="batchNorm",
            holds=lambda self: self.batch_norm is not FrozenBatchNorm.TRAIN,
            cel="!has(self.batchNorm) || self.batchNorm != 'Train'",
        ),
    )
