"""`FineTuneJob`, snowmelt.dev/v1alpha1: the only source of its schema, its defaults and its documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from snowmelt_operator.api import quantity
from snowmelt_operator.api.conditions import Condition, Phase
from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.contract.base import Contract, Rule, Transition, hold, not_supported_yet
from snowmelt_trainer.contract.data import Data
from snowmelt_trainer.contract.optimization import Optimization
from snowmelt_trainer.contract.output import Output
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
from snowmelt_trainer.contract.text import Form
from snowmelt_trainer.contract.unfreezing import Unfreezing

GROUP = "snowmelt.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
MAX_NAME_LENGTH = 40
"""RayJobs and Services grow from the name: KubeRay allows a RayJob 47 characters."""

MAX_QUANTITY_LENGTH = 32


def _quantity(value: Any) -> Any:
    """One refusal where int and str, each tried, would give two."""
    if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > MAX_QUANTITY_LENGTH:
        raise ValueError(f'{value!r} is not a quantity: write a whole number, or text such as "500m" or "16Gi"')
    quantity.parse_quantity(value)
    return value


Quantity = Annotated[
    int | str,
    BeforeValidator(_quantity),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": quantity.PATTERN,
            "maxLength": MAX_QUANTITY_LENGTH,
        }
    ),
]
"""A Kubernetes quantity: 4, "500m", 16Gi. Never negative."""
ResourceName = Annotated[str, StringConstraints(max_length=317)]
ResourceList = Annotated[dict[ResourceName, Quantity], Field(max_length=16)]
DnsName = Annotated[
    str,
    StringConstraints(max_length=253),
    Form(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", "a name of lower-case letters, digits, '-' and '.'"),
]
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63),
    Form(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", "a label value of letters, digits, '-', '_' and '.'"),
]
LabelKey = Annotated[str, StringConstraints(max_length=317)]
EnvName = Annotated[
    str,
    StringConstraints(max_length=256),
    Form(r"^[A-Za-z_][A-Za-z0-9_]*$", "a variable's name of letters, digits and '_'"),
]


class Resources(Contract):
    """Compute resources of one worker, as in a container."""

    requests: ResourceList = {}
    """What the worker reserves, for instance {cpu: 4, memory: 16Gi}."""
    limits: ResourceList = {}
    """What the worker may use at most, for instance {nvidia.com/gpu: 1}."""


class Elastic(Contract):
    """Bounds between which the number of workers may change while the job runs."""

    min: Annotated[int, Field(ge=1, le=1024)]
    """Fewest workers."""
    max: Annotated[int, Field(ge=1, le=1024)]
    """Most workers."""


class Workers(Contract):
    """The Ray Train workers, one pod each under KubeRay."""

    replicas: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many workers train together."""
    elastic: Elastic | None = None
    """Bounds for a number of workers that changes. Not supported yet."""
    resources: Resources = Resources()
    """Resources of each worker. A limit of nvidia.com/gpu makes it train on GPUs."""

    rules = (
        not_supported_yet(
            "spec.workers.elastic", field="elastic", holds=lambda self: self.elastic is None, cel="!has(self.elastic)"
        ),
    )


class KeySelector(Contract):
    """One key of a Secret or ConfigMap in the job's namespace."""

    name: DnsName
    """The object's name."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """The key in its data."""


class EnvVarSource(Contract):
    """Where an environment variable's value comes from."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret."""
    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap."""


class EnvVar(Contract):
    """One environment variable of the trainer's containers."""

    name: EnvName
    """The variable's name."""
    value: Annotated[str, StringConstraints(max_length=32768)] | None = None
    """Its value."""
    value_from: EnvVarSource | None = None
    """Where its value comes from, instead."""

    rules = (
        Rule(
            field="name",
            holds=lambda self: not self.name.startswith("SNOWMELT_"),
            cel="!self.name.startsWith('SNOWMELT_')",
            message="names that start with SNOWMELT_ belong to Snowmelt: choose another",
        ),
        Rule(
            field="value",
            holds=lambda self: self.value is None or self.value_from is None,
            cel="!(has(self.value) && has(self.valueFrom))",
            message="value and valueFrom exclude each other: remove one of them",
        ),
    )


class Toleration(Contract):
    """A toleration of the pods, as in core/v1."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """The taint's key; absent with operator Exists matches all."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent matches all."""
    toleration_seconds: int | None = None
    """For NoExecute: how long the pod stays."""


class LocalObjectReference(Contract):
    """An object of the job's namespace."""

    name: DnsName
    """Its name."""


class Runtime(Contract):
    """How the trainer's pods are run under KubeRay."""

    image: Annotated[str, StringConstraints(max_length=512)] = ""
    """The trainer's image; the operator's default when empty."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables of every container of the job."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate."""
    service_account_name: DnsName = ""
    """The pods' service account; its token is never mounted."""
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    """Secrets for pulling the image."""
    queue_name: Annotated[str, StringConstraints(max_length=63)] = ""
    """A Kueue LocalQueue that decides when the job may start."""
    priority_class_name: DnsName = ""
    """The pods' priority class."""


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
        YAML, no string where a number belongs, and a null is as good as nothing.

        Raises:
            pydantic.ValidationError: with one entry for each problem.
        """
        return cls.model_validate_json(json.dumps(_without_nulls(document)), strict=True, by_alias=True, by_name=False)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
