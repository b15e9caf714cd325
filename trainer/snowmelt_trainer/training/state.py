"""Where a run stands, as data. Each checkpoint holds one `RunState`; the transitions between them are pure
functions."""

from __future__ import annotations

from enum import StrEnum

from snowmelt_trainer.contract.base import Contract
from snowmelt_trainer.contract.progress import CacheStatus, Metrics, StageRow, decimal
from snowmelt_trainer.contract.unfreezing import Metric, StageLimits, Target
from snowmelt_trainer.training.metrics import Counts, improves, outranks


class StageEnd(StrEnum):
    """Why a stage ended."""

    MAX_EPOCHS = "MaxEpochs"
    PLATEAU = "Plateau"
    TARGET_MET = "TargetMet"


class Best(Contract):
    """The best weights so far: those whose deciding metric is best; at a tie, those with the lower loss; then the
    earlier ones."""

    checkpoint: str
    stage: int
    """Counted from 1."""
    epoch: int
    values: dict[Metric, float]


class Epoch(Contract):
    """One trained epoch, as it stands in history.jsonl."""

    stage: int
    """Counted from 1."""
    name: str
    epoch: int
    """Counted from 1."""
    step: int
    """Optimizer steps since the stage began."""
    train_loss: float
    """Mean training loss over the epoch's samples (with augmentation, dropout and label smoothing)."""
    validation: dict[Metric, float]
    seconds: float
    """Time spent in the stage so far."""
    samples_per_second: float
    workers: int = 1
    """How many trained when the epoch ended."""
    ended: StageEnd | None = None
    weights: tuple[str, ...] = ()
    """At the end of a stage, the digest of each worker's weights and buffers, by rank."""


class RunState(Contract):
    """Where a run stands. Stage indices count from 0; `epoch` epochs of the stage are done, and `step` optimizer steps
    of the next one."""

    fingerprint: str
    """Of the configuration; a checkpoint of another configuration is never resumed from."""
    stage: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    """Sum of the training losses over the samples of the epoch that is under way."""
    stage_seconds: float = 0.0
    """Time spent in this stage, all attempts together."""
    train_seconds: float = 0.0
    """The part of it spent on training steps."""
    samples: int = 0
    """Images trained on in this stage."""
    stage_best: dict[Metric, float] | None = None
    """Validation metrics of the stage's best epoch, ranked as `Best` is."""
    to_beat: float | None = None
    """The deciding metric of the stage's last epoch that improved by minDelta: by as much again must the next."""
    stale: int = 0
    """Epochs since that one."""
    ended: StageEnd | None = None
    """Set once the stage has ended."""
    cache: CacheStatus | None = None
    """What was decided about this stage's cache of activations; an attempt that resumes keeps to it."""
    solved: bool | None = None
    """Whether a solver finds this stage's head; an attempt that resumes keeps to it."""
    best: Best | None = None
    rows: tuple[StageRow, ...] = ()
    """Finished stages."""
    history: tuple[Epoch, ...] = ()


def deciding_metric(target: Target | None) -> Metric:
    """The validation metric that says which weights are best and when a stage stops improving: the target's, else
    accuracy."""
    return target.metric if target else Metric.ACCURACY


def after_epoch(
    state: RunState,
    counts: Counts,
    *,
    limits: StageLimits,
    max_epochs: int,
    target: Target | None,
    checkpoint: str,
    rate_is_high: bool = False,
) -> RunState:
    """The state after one more epoch of the current stage, evaluated as `counts`; `checkpoint` will hold these very
    weights. While `rate_is_high`, an epoch without improvement says nothing, and patience does not count it."""
    metric = deciding_metric(target)
    values = counts.values
    epoch = state.epoch + 1
    better = improves(metric, values[metric], state.to_beat, limits.min_delta)
    stale = 0 if better or rate_is_high else state.stale + 1
    best = Best(checkpoint=checkpoint, stage=state.stage + 1, epoch=epoch, values=values)

    def leads(before: dict[Metric, float] | None) -> bool:
        return before is None or outranks(metric, values, before)

    return state.model_copy(
        update={
            "epoch": epoch,
            "step": 0,
            "loss_sum": 0.0,
            "stage_best": values if leads(state.stage_best) else state.stage_best,
            "to_beat": values[metric] if better else state.to_beat,
            "stale": stale,
            "best": best if leads(state.best.values if state.best else None) else state.best,
            "ended": _stage_end(epoch, stale, limits, max_epochs, target is not None and target.met_by(values[metric])),
        }
    )


def _stage_end(epoch: int, stale: int, limits: StageLimits, max_epochs: int, target_met: bool) -> StageEnd | None:
    if target_met:
        return StageEnd.TARGET_MET
    if epoch >= max_epochs:
        return StageEnd.MAX_EPOCHS
    return StageEnd.PLATEAU if stale >= limits.patience else None


def close_stage(state: RunState, *, name: str, trainable_parameters: int) -> RunState:
    """The state after an ended stage: its row is written, and the next stage begins at its first epoch."""
    if state.ended is None:
        raise ValueError("the stage has not ended")
    row = StageRow(
        index=state.stage + 1,
        name=name,
        epochs=state.epoch,
        seconds=round(state.stage_seconds, 3),
        trainable_parameters=trainable_parameters,
        samples_per_second=per_second(state.samples, state.train_seconds),
        metrics=as_metrics(state.stage_best or {}),
        ended=state.ended,
        cache=state.cache,
        solved=state.solved or None,
    )
    return RunState(
        fingerprint=state.fingerprint,
        stage=state.stage + 1,
        best=state.best,
        rows=(*state.rows, row),
        history=state.history,
    )


def as_metrics(values: dict[Metric, float]) -> Metrics:
    """Metrics as they stand in status."""
    return {metric.value: decimal(value) for metric, value in values.items()}


def per_second(samples: int, seconds: float) -> float:
    """Samples a second; 0 before any time has passed."""
    return round(samples / seconds, 1) if seconds > 0 else 0.0
