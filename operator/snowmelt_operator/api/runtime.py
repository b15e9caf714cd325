"""`spec.runtime`: how the pods of a job are run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from snowmelt_operator.api.names import DnsName
from snowmelt_trainer.contract.base import Contract, Rule
from snowmelt_trainer.contract.text import Form

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


class Placement(StrEnum):
    """Where the pods of a job would rather sit; a preference, never a condition."""

    SAME_ZONE = "SameZone"
    """In one zone, for its network is the faster and the cheaper one."""
    SAME_NODE = "SameNode"
    """On one node where it has room, for instance to join GPUs by NVLink; else in one zone."""
    DIFFERENT_NODES = "DifferentNodes"
    """Each worker on a node of its own, so that a node's loss costs one worker; in one zone where it has room."""


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
    placement: Placement = Placement.SAME_ZONE
    """Where the pods would rather sit."""
    managed_by: Literal["", "ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] = ""
    """Who runs the RayJobs. With kueue.x-k8s.io/multikueue, MultiKueue takes them to another cluster, where each needs
    its Secret of the same name, which MultiKueue does not take along."""
