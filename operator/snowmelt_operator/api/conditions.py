"""Conditions of a FineTuneJob, as in KEP-1623 and the Kubernetes API conventions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from snowmelt_trainer.contract.base import Contract


class ConditionType(StrEnum):
    ACCEPTED = "Accepted"
    """The spec can be carried out."""
    QUEUED = "Queued"
    """A queue (Kueue) holds the job back."""
    CLUSTER_READY = "ClusterReady"
    """The Ray cluster of the current attempt is up."""
    RUNNING = "Running"
    """The trainer of the current attempt runs."""
    PROGRESSING = "Progressing"
    """The trainer reports progress."""
    CHECKPOINT_AVAILABLE = "CheckpointAvailable"
    """A new attempt would resume instead of starting anew."""
    DEGRADED = "Degraded"
    """The job has to do, or has done, without something that it was to have; it goes on all the same."""
    SUSPENDED = "Suspended"
    """spec.suspend is true and nothing runs."""
    COMPLETE = "Complete"
    """The job succeeded; the model is at status.result.modelUri."""
    FAILED = "Failed"
    """The job failed for good; reason and message say why."""


class Condition(Contract):
    """One condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """The condition's name."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ]
    """Why, in one word for machines; docs/reasons.md lists them."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """Why, in words for people."""
    last_transition_time: datetime
    """When status last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation that the condition was computed from."""


class Phase(StrEnum):
    """One word for `kubectl get`, derived from the conditions and never read back."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
