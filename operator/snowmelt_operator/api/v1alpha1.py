"""`FineTuneJob`, snowmelt.dev/v1alpha1: the only source of its schema, its defaults and its documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from snowmelt_operator.api.runtime import Runtime
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.workers import Workers
from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.contract.base import Contract, Rule, Transition, hold
from snowmelt_trainer.contract.data import Data
from snowmelt_trainer.contract.optimization import Optimization
from snowmelt_trainer.contract.output import Output
from snowmelt_trainer.contract.unfreezing import Unfreezing

GROUP = "snowmelt.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
MAX_NAME_LENGTH = 40
"""RayJobs and Services grow from the name: KubeRay allows a RayJob 47 characters."""


def _immutable(*path: str, optional: bool) -> Transition:
    """What `path` of spec says may not change after creation; `optional` fields must stay absent where they were."""
    then = f"self.{'.'.join(path)} == oldSelf.{'.'.join(path)}"
    if optional:
        steps = [".".join(path[: length + 1]) for length in range(len(path))]
        present = " && ".join(f"has(self.{step})" for step in steps)
        present_before = present.replace("self.", "oldSelf.")
        then = f"({present}) == ({present_before}) && (!({present}) || {then})"
    name = ".".join(("spec", *path))
    return Transition(
        field=".".join(path), cel=then, message=f"{name} cannot be changed after creation: create another FineTuneJob"
    )


class FineTuneJobSpec(Contract):
    """What to fine-tune, on what, how, and with what resources."""

    backbone: Backbone
    """The pretrained network."""
    data: Data
    """The target data."""
    unfreezing: Unfreezing = Unfreezing()
    """How much of the network is trained, stage by stage."""
    optimization: Optimization = Optimization()
    """The optimizer, its learning rates and its guards."""
    output: Output
    """Where the model goes."""
    workers: Workers = Workers()
    """The Ray Train workers."""
    runtime: Runtime = Runtime()
    """How the pods are run."""
    suspend: bool = False
    """True stops the job and gives its resources back; false lets it go on from its last checkpoint."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many failed attempts are retried before the job fails."""
    startup_deadline_seconds: Annotated[int, Field(ge=1, le=86_400 * 7)] = 900
    """How long an attempt may take from its launch to the running trainer; time in a queue does not count."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """How long the job may be active in all, suspensions not counted, before it fails."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """How long the finished FineTuneJob is kept before it is deleted; for ever when absent. The model always stays."""

    rules = (
        Rule(
            field="workers.elastic",
            holds=lambda self: self.workers.elastic is None or not self.runtime.queue_name,
            cel="!has(self.workers) || !has(self.workers.elastic) || !has(self.runtime) "
            "|| !has(self.runtime.queueName) || self.runtime.queueName == ''",
            message="spec.workers.elastic cannot be used with spec.runtime.queueName: Kueue admits a fixed number of "
            "pods; leave one of them out",
        ),
    )
    transitions = (
        _immutable("backbone", optional=False),
        _immutable("data", optional=False),
        _immutable("output", optional=False),
        _immutable("unfreezing", optional=True),
        _immutable("optimization", optional=True),
        _immutable("runtime", optional=True),
        _immutable("workers", "resources", optional=True),
        _immutable("workers", "elastic", optional=True),
    )


class ObjectMeta(Contract):
    """The parts of metadata that Snowmelt reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    """At most 40 characters: lower-case letters, digits and hyphens, beginning with a letter."""
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


NAME_RULES = (
    Rule(
        field="name",
        holds=lambda self: len(self.name) <= MAX_NAME_LENGTH,
        cel=f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        message=f"metadata.name is too long: use at most {MAX_NAME_LENGTH} characters",
    ),
    Rule(
        field="name",
        holds=lambda self: re.fullmatch(NAME_PATTERN, self.name) is not None,
        cel=f"self.metadata.name.matches('{NAME_PATTERN}')",
        message="metadata.name must be lower-case letters, digits and hyphens, and begin with a letter",
    ),
)
"""Of a new job's metadata. The API server lets a schema speak of metadata at its root alone: there CEL begins."""


class FineTuneJob(Contract):
    """A fine-tuning job: a pretrained backbone, target data, and how far to unfreeze."""

    api_version: Literal["snowmelt.dev/v1alpha1"]
    """snowmelt.dev/v1alpha1"""
    kind: Literal["FineTuneJob"]
    """FineTuneJob"""
    metadata: Annotated[ObjectMeta, AfterValidator(lambda metadata: hold(NAME_RULES, metadata))]
    """Standard object metadata. The name has at most 40 characters."""
    spec: FineTuneJobSpec
    """What to fine-tune, on what, how, and with what resources."""
    status: FineTuneJobStatus = FineTuneJobStatus()
    """What happened so far. Written by the operator alone."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> FineTuneJob:
        """A FineTuneJob from a manifest or from the API server, held to what the API server would take: names as in
        YAML, no string where a number belongs, a null is as good as nothing, and 64.0 is the integer 64.

        Raises:
            pydantic.ValidationError: with one entry for each problem.
        """
        return cls.model_validate_json(json.dumps(_as_stored(document)), strict=True, by_alias=True, by_name=False)


def _as_stored(value: Any) -> Any:
    """Without nulls; JSON has one type of number, and the API server takes 64.0 where an integer belongs."""
    match value:
        case Mapping():
            return {key: _as_stored(item) for key, item in value.items() if item is not None}
        case list():
            return [_as_stored(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value
