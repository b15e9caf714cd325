"""`status`: what happened so far. Written by the operator alone."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from snowmelt_operator.api.conditions import Condition, Phase
from snowmelt_operator.api.names import DnsName
from snowmelt_trainer.contract.base import Contract
from snowmelt_trainer.contract.progress import (
    CheckpointStatus,
    DataStatus,
    FinalRecord,
    MetricsStatus,
    ProgressStatus,
    Result,
    ShortText,
    StageRow,
    StageStatus,
)

MAX_INCIDENTS = 5


class Attempts(Contract):
    """How often the job was launched."""

    current: Annotated[int, Field(ge=0)] = 0
    """The newest attempt, counted from 1; 0 before the first."""
    failed: Annotated[int, Field(ge=0)] = 0
    """Attempts that failed; suspensions do not count."""
    started_at: datetime | None = None
    """When the current attempt was launched."""
    active_seconds: Annotated[int, Field(ge=0)] = 0
    """How long earlier attempts were active, for activeDeadlineSeconds."""
    futile: Annotated[int, Field(ge=0)] = 0
    """Failed attempts in a row that wrote no checkpoint; each doubles the delay before the next."""
    next_start_at: datetime | None = None
    """When the next attempt starts, after one that failed."""


class Incident(Contract):
    """Something that went wrong while the job ran; of one reason, an attempt has one at most."""

    attempt: Annotated[int, Field(ge=1)]
    """The attempt that it happened to."""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    """Why, in one word; docs/reasons.md lists them."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """The cluster's or the trainer's own words."""
    pod: Annotated[str, StringConstraints(max_length=253)] | None = None
    """The pod that it happened to."""
    time: datetime
    """When the operator saw it."""
    log: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """The end of the log of a container that ended then, kept because the pod will be gone."""


class TrainerStatus(Contract):
    """The trainer's own last word, kept until the operator has acted on it."""

    attempt: Annotated[int, Field(ge=1)]
    """The attempt that said it."""
    sequence: Annotated[int, Field(ge=0)] = 0
    """Number of the newest progress report."""
    final: FinalRecord | None = None
    """How the attempt ended, in the trainer's words."""


class DisplayStatus(Contract):
    """Cells of `kubectl get` that one JSONPath cannot compose."""

    stage: ShortText | None = None
    """For instance `2/5 layer4`."""
    progress: ShortText | None = None
    """For instance `43%`."""
    metric: ShortText | None = None
    """For instance `accuracy 0.934`."""
    eta: ShortText | None = None
    """For instance `12m`."""


class FineTuneJobStatus(Contract):
    """What happened so far. Written by the operator alone."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that this status speaks of."""
    phase: Phase | None = None
    """One word, derived from the conditions."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    """The state in detail; `kubectl wait --for=condition=Complete` works."""
    attempts: Attempts = Attempts()
    """How often the job was launched."""
    ray_job_name: DnsName | None = None
    """The RayJob (or Ray submission) of the current attempt."""
    dashboard_url: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Where the Ray dashboard of the current attempt listens, inside the cluster."""
    incidents: Annotated[tuple[Incident, ...], Field(max_length=MAX_INCIDENTS)] = ()
    """What went wrong so far, newest last; older ones are dropped."""
    finished_at: datetime | None = None
    """When the job ended, for ttlSecondsAfterFinished."""
    stage: StageStatus | None = None
    """The stage that is being trained."""
    progress: ProgressStatus | None = None
    """How far the run is."""
    metrics: MetricsStatus | None = None
    """The newest measurements."""
    stages: Annotated[tuple[StageRow, ...], Field(max_length=64)] = ()
    """Finished stages."""
    checkpoint: CheckpointStatus | None = None
    """The newest checkpoint."""
    data: DataStatus | None = None
    """What was found in the data."""
    warnings: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """What a person should know though the run goes on."""
    trainer: TrainerStatus | None = None
    """The trainer's own last word."""
    result: Result | None = None
    """What a successful run left behind."""
    display: DisplayStatus | None = None
    """Ready-made cells for `kubectl get`."""
