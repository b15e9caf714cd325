"""What stays the same from the first stage of a run to its last, on one worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from torch import nn

from snowmelt_trainer.backbones import LayerGroup
from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.progress import CheckpointStatus, DataStatus, Progress
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.data.batches import global_step
from snowmelt_trainer.data.loading import Batch, EvaluationLoader, TrainingLoader
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.beside import Rest
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.evaluate import compare
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.requests import CheckpointRequests
from snowmelt_trainer.training.snapshot import Pace, snapshot
from snowmelt_trainer.training.state import RunState, deciding_metric

REPORT_EVERY_SECONDS = 1.0
MAX_WARNINGS, MAX_WARNING = 8, 256
"""As the contract's Progress bounds them."""


@dataclass
class Reporter:
    """Sends snapshots of the run; only the leading worker has one that `send`s anywhere."""

    plan: tuple[Stage, ...]
    metric: Metric
    steps_per_epoch: int
    data: DataStatus
    warnings: tuple[str, ...]
    send: Callable[[Progress], None]
    workers: int = 1
    """How many train."""
    clock: Callable[[], float] = time.monotonic
    pace: Pace = field(default_factory=Pace)
    checkpoint: CheckpointStatus | None = None
    _due: float = float("-inf")
    _newest: RunState | None = None

    def step(self, state: RunState, samples: int) -> None:
        """After an optimizer step: says so at most once a second. Costs a look at the clock, and never waits for the
        device."""
        now = self.clock()
        if now < self._due:
            return
        self.pace.add(now, samples)
        self.report(state)

    def kept(self, state: RunState) -> None:
        """A checkpoint of `state` lies in storage. The run may be beyond it by now, and is shown where it is."""
        self.found(state)
        self.report(max(state, self._newest or state, key=_how_far))

    def found(self, state: RunState) -> None:
        """A checkpoint of `state` lies in storage, from the next snapshot on. Where a run goes on from the end of a
        stage, that is one of the stage after it."""
        self.checkpoint = CheckpointStatus(
            stage=state.stage + 1,
            epoch=state.epoch,
            step=state.epoch * self.steps_per_epoch + state.step,
            time=datetime.now(UTC),
        )

    def tick(self, state: RunState) -> None:
        """In the course of work that is no training, such as filling a cache: says once a second that it goes on."""
        if self.clock() >= self._due:
            self.report(state)

    def warn(self, text: str, stage: Stage | None = None) -> None:
        """Shows a warning, of one stage, in status from the next snapshot on, before older ones, of which the last may
        go."""
        if stage is not None:
            text = f"stage {stage.index} ({stage.name}): {text}"
        if text[:MAX_WARNING] not in self.warnings:
            self.warnings = (text[:MAX_WARNING], *self.warnings)[:MAX_WARNINGS]

    def report(self, state: RunState, *, finished: bool = False) -> None:
        """Says at once where the run stands; `finished` when no stage follows."""
        self._due, self._newest = self.clock() + REPORT_EVERY_SECONDS, state
        self.send(
            snapshot(
                self.plan,
                state,
                self.metric,
                steps_per_epoch=self.steps_per_epoch,
                samples_per_second=self.pace.samples_per_second,
                checkpoint=self.checkpoint,
                data=self.data,
                warnings=self.warnings,
                workers=self.workers,
                now=datetime.now(UTC),
                finished=finished,
            )
        )


def _how_far(state: RunState) -> tuple[int, int, int]:
    return state.stage, state.epoch, state.step


@dataclass(frozen=True)
class Rig:
    """Model, plan, data and the places that a run writes to."""

    config: RunConfig
    model: nn.Module
    groups: tuple[LayerGroup, ...]
    plan: tuple[Stage, ...]
    classes: int
    samples: int
    """Training images."""
    train: TrainingLoader
    validation: EvaluationLoader
    """This worker's unpadded share of the validation data."""
    world: World
    precision: Precision
    fingerprint: str
    store: CheckpointStore
    reporter: Reporter
    requests: CheckpointRequests = field(default_factory=CheckpointRequests)
    rest: Rest = field(default_factory=Rest)
    """Between the checkpoints."""
    clock: Callable[[], float] = time.monotonic

    @property
    def metric(self) -> Metric:
        """What decides which weights are best."""
        return deciding_metric(self.config.unfreezing.target)

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become the network's input."""
        return self.train.dataset.view.preprocessing

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Counts:
        """As `training.evaluate.evaluate`, of images or of what the frozen layers made of them."""
        (counts,) = self.compare(nn.Identity(), [model], batches)
        return counts

    def compare(self, before: nn.Module, heads: Sequence[nn.Module], batches: Iterable[Batch]) -> tuple[Counts, ...]:
        """As `training.evaluate.compare`."""
        return compare(
            before,
            heads,
            batches,
            classes=self.classes,
            world=self.world,
            precision=self.precision,
            preprocessing=self.preprocessing,
        )

    def images_in(self, step: int) -> int:
        """Images in step `step` of any epoch, over all workers."""
        return len(global_step(np.arange(self.samples), step, self.train.global_batch))

    def adapts_statistics(self, stage: Stage) -> bool:
        """Whether BatchNorm in the stage's trained layers normalises by the batch and goes on counting.

        As long as layers beneath are frozen, what pretraining counted still holds, and what is opened moves less when
        that stands still. Where everything is trained it does not hold any more."""
        return self.config.backbone.from_scratch or len(stage.trainable) == len(self.groups)

    def begins_to_adapt(self, stage: int) -> bool:
        """Whether the plan's stage of that index adapts statistics, and the one before it does not."""
        if not 0 < stage < len(self.plan):
            return False
        return self.adapts_statistics(self.plan[stage]) and not self.adapts_statistics(self.plan[stage - 1])
