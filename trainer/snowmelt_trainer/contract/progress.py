"""`Progress`: what the trainer says of itself. Each one is a whole snapshot, so only the newest matters.

The trainer's driver posts it to the operator, which writes it into status; `snowmelt run` shows it on the terminal.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from snowmelt_trainer.contract.backbone import Sha256
from snowmelt_trainer.contract.base import Contract
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.contract.unfreezing import GroupPattern

MAX_PROGRESS_BYTES = 64 * 1024
"""Largest body the progress endpoint takes."""

Decimal = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?$", max_length=32)]
"""A number as a string: the Kubernetes API conventions keep floats out of status."""
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9]*$", max_length=40)]
Metrics = Annotated[dict[MetricName, Decimal], Field(max_length=16)]
ShortText = Annotated[str, StringConstraints(max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=2048)]
Count = Annotated[int, Field(ge=0)]


def decimal(value: float) -> str:
    """A metric as it stands in status: six significant digits, no trailing zeros.

    Raises:
        ValueError: for NaN and infinities, which no status may hold.
    """
    if not math.isfinite(value):
        raise ValueError("a metric in status must be finite")
    return f"{value:.6g}"


class CachePlace(StrEnum):
    MEMORY = "Memory"
    """In the workers' memory."""
    FILE = "File"
    """In files on the workers' local disks."""


class CacheStatus(Contract):
    """The cache of the frozen layers' activations in one stage: what was decided, what it cost, what it saved."""

    views: Annotated[int, Field(ge=0, le=64)] = 0
    """Variations of each training image that are kept; 0 when no cache was built."""
    place: CachePlace | None = None
    """Where they are kept; absent when no cache was built."""
    bytes: Count = 0
    """What is kept, over all workers."""
    build_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time spent filling it, which is nearly what the same epochs would have taken without: the slowest worker's."""
    saved_seconds: float = 0.0
    """Time for the frozen layers and the reading of images that later epochs did not spend, less the cost of the cache;
    the leading worker's, measured."""
    reason: ShortText = ""
    """Why it was built, or why not, with the numbers that decided; or what ended it."""
    failed: bool = False
    """Whether it was given up, for instance because the disk was full; training goes on without it."""


class StageStatus(Contract):
    """The stage that is being trained."""

    index: Annotated[int, Field(ge=1)]
    """Counted from 1."""
    of: Annotated[int, Field(ge=1)]
    """How many stages are planned."""
    name: ShortText
    """The newly unfrozen layer group, or groups."""
    unfrozen: Annotated[tuple[GroupPattern, ...], Field(max_length=128)]
    """Every layer group that is trained in this stage, input to output."""
    trainable_parameters: Count
    """How many parameters are trained."""
    total_parameters: Count
    """How many parameters the network has."""
    cache: CacheStatus | None = None
    """What is known so far of the cache of its frozen layers' activations."""


class ProgressStatus(Contract):
    """How far the run is."""

    percent: Annotated[int, Field(ge=0, le=100)]
    """Share of the planned work that is done; it never goes back, and leaps when a stage ends early."""
    epoch: Count = 0
    """Epoch within the stage, counted from 1; 0 before the first."""
    step: Count = 0
    """Optimizer step within the stage."""
    samples_per_second: float | None = None
    """Training images a second over all workers, averaged over the newest seconds."""
    estimated_completion_time: AwareDatetime | None = None
    """When the last planned stage would end at this pace."""
    last_update_time: AwareDatetime | None = None
    """When the trainer said this."""
    workers: Count | None = None
    """Workers that train now."""


class BestStatus(Contract):
    """The best validation result so far."""

    metric: MetricName
    """The metric that decides."""
    value: Decimal
    """Its value."""
    stage: Count
    """The stage that reached it."""
    epoch: Count
    """The epoch within that stage."""


class MetricsStatus(Contract):
    """The newest measurements."""

    train: Metrics = {}
    """Averages over the newest epoch's training steps."""
    validation: Metrics = {}
    """Exact figures on the validation data after the newest epoch."""
    best: BestStatus | None = None
    """The best validation result so far."""


class StageRow(Contract):
    """One finished stage."""

    index: Annotated[int, Field(ge=1)]
    """Counted from 1."""
    name: ShortText
    """The newly unfrozen layer group, or groups."""
    epochs: Count
    """Epochs that were trained."""
    seconds: Annotated[float, Field(ge=0)]
    """Time spent in the stage, all attempts together."""
    trainable_parameters: Count = 0
    """How many parameters were trained."""
    samples_per_second: float | None = None
    """Training images a second over all workers, averaged over the stage."""
    metrics: Metrics = {}
    """Validation metrics of the stage's best epoch."""
    ended: ShortText
    """Why the stage ended: MaxEpochs, Plateau or TargetMet."""
    cache: CacheStatus | None = None
    """The cache of the frozen layers' activations; absent where nothing is frozen before the first trained layer."""
    solved: bool | None = None
    """True where a solver found the head (optimization.headStart): an epoch is then one strength of the penalty on its
    weights."""


class CheckpointStatus(Contract):
    """The newest checkpoint a new attempt would resume from."""

    stage: Count
    """The stage it was written in."""
    epoch: Count
    """Epochs of that stage that were finished."""
    step: Count
    """Optimizer steps of the epoch after those."""
    time: AwareDatetime
    """When it was written."""


class DataStatus(Contract):
    """What was found in the data."""

    classes: Count
    """Classes, as found in the training data."""
    train: Count
    """Training images, after the validation share was taken out."""
    validation: Count
    """Validation images."""
    test: Count = 0
    """Test images."""
    duplicates_across_splits: Count = 0
    """Images of the validation or test data whose content is also in the training data."""


class Result(Contract):
    """What a successful run leaves behind."""

    model_uri: ShortText
    """The folder with the model, its configuration and its metrics."""
    sha256: Sha256
    """SHA-256 of model.safetensors."""
    report_uri: ShortText | None = None
    """The metrics and history of the run."""
    validation: Metrics = {}
    """Metrics of the delivered model on the validation data."""
    test: Metrics = {}
    """Metrics of the delivered model on the test data, when there is one."""


class FinalRecord(Contract):
    """The trainer's own last word on the run; also kept in storage, where a later attempt finds it."""

    outcome: Outcome
    """Whether the run succeeded."""
    reason: Reason
    """Why it ended, in one word for machines."""
    message: LongText
    """For people: what happened, where, what to do."""
    result: Result | None = None
    """Present when the outcome is Succeeded."""


class Progress(Contract):
    """A snapshot of the run."""

    attempt: Annotated[int, Field(ge=1)]
    sequence: Annotated[int, Field(ge=0)]
    """Grows within an attempt; a snapshot with a lower one is late and is dropped."""
    time: AwareDatetime
    stage: StageStatus | None = None
    progress: ProgressStatus
    metrics: MetricsStatus = MetricsStatus()
    stages: Annotated[tuple[StageRow, ...], Field(max_length=64)] = ()
    checkpoint: CheckpointStatus | None = None
    data: DataStatus | None = None
    warnings: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """What a person should know though the run goes on, for instance duplicates across splits."""
    final: FinalRecord | None = None
    """Set in the last snapshot of an attempt."""
