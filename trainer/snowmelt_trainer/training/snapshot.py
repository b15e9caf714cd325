"""A snapshot of the run for status: how far, how fast, until when. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

from snowmelt_trainer.contract.progress import (
    BestStatus,
    CacheStatus,
    CheckpointStatus,
    DataStatus,
    MetricsStatus,
    Progress,
    ProgressStatus,
    StageStatus,
    decimal,
)
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.state import RunState, as_metrics, per_second

WINDOW_SECONDS = 10.0
MOST_BEFORE_THE_END = 99
"""The last percent is for the delivered model."""


class Pace:
    """Images a second over the newest seconds. Time is given, in seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, now: float, samples: int) -> None:
        """`samples` images have been trained on by `now`, counted from any fixed moment."""
        self._marks.append((now, samples))
        while len(self._marks) > 2 and now - self._marks[1][0] >= WINDOW_SECONDS:
            self._marks.popleft()

    def restart(self) -> None:
        """Forget what was before a pause that is not training, such as an evaluation."""
        self._marks.clear()

    @property
    def samples_per_second(self) -> float | None:
        """None before two moments are known."""
        if len(self._marks) < 2:
            return None
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return per_second(after - before, last - first)


def share_done(plan: Sequence[Stage], stage: int, epochs: float) -> float:
    """Share of the planned epochs that is done or, where a stage ended early, no longer needed. `stage` counts from
    0."""
    planned = sum(one.max_epochs for one in plan)
    done = sum(one.max_epochs for one in plan[:stage]) + epochs
    return min(1.0, done / planned)


def remaining_seconds(plan: Sequence[Stage], stage: int, epochs: float, stage_seconds: float) -> float | None:
    """Seconds until the last planned stage would end, if each epoch took as long as this stage's have taken so far;
    None before the first step. Stages that end early make it shorter, and stages that train more layers make it
    longer."""
    if epochs <= 0 or stage >= len(plan):
        return None
    left = plan[stage].max_epochs - epochs + sum(one.max_epochs for one in plan[stage + 1 :])
    return left * stage_seconds / epochs


def snapshot(
    plan: Sequence[Stage],
    state: RunState,
    metric: Metric,
    *,
    steps_per_epoch: int,
    samples_per_second: float | None,
    checkpoint: CheckpointStatus | None,
    data: DataStatus,
    warnings: tuple[str, ...],
    workers: int,
    now: datetime,
    finished: bool = False,
) -> Progress:
    """The state as status shows it. Attempt and sequence are the sender's to fill in.

    `finished` says that no stage follows the one whose row was written last, which is then the one shown.
    """
    shown = state.stage - 1 if finished else state.stage
    epoch = state.epoch if state.ended else state.epoch + 1
    epochs = state.epoch + state.step / steps_per_epoch
    remaining = remaining_seconds(plan, state.stage, epochs, state.stage_seconds)
    return Progress(
        attempt=1,
        sequence=0,
        time=now,
        stage=stage_status(plan[shown], shown + 1, len(plan), state.rows[-1].cache if finished else state.cache),
        progress=ProgressStatus(
            percent=min(MOST_BEFORE_THE_END, int(100 * share_done(plan, state.stage, epochs))),
            epoch=state.rows[-1].epochs if finished else epoch,
            step=state.history[-1].step if finished else state.epoch * steps_per_epoch + state.step,
            samples_per_second=samples_per_second,
            estimated_completion_time=None
            if remaining is None or finished
            else now + timedelta(seconds=round(remaining)),
            last_update_time=now,
            workers=workers,
        ),
        metrics=_metrics(state, metric),
        stages=state.rows,
        checkpoint=checkpoint,
        data=data,
        warnings=warnings,
    )


def _metrics(state: RunState, metric: Metric) -> MetricsStatus:
    newest, best = state.history[-1] if state.history else None, state.best
    return MetricsStatus(
        train={} if newest is None else {Metric.LOSS.value: decimal(newest.train_loss)},
        validation={} if newest is None else as_metrics(newest.validation),
        best=None
        if best is None
        else BestStatus(metric=metric.value, value=decimal(best.values[metric]), stage=best.stage, epoch=best.epoch),
    )


def stage_status(stage: Stage, index: int, of: int, cache: CacheStatus | None) -> StageStatus:
    """A planned stage as status shows it; `index` counts from 1."""
    return StageStatus(
        index=index,
        of=of,
        name=stage.name,
        unfrozen=stage.trainable,
        trainable_parameters=stage.trainable_parameters,
        total_parameters=stage.total_parameters,
        cache=cache,
    )
