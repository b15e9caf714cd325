"""`spec.workers`: how many Ray Train workers, and what each of them gets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from snowmelt_operator.api import quantity
from snowmelt_trainer.contract.base import Contract, Rule
from snowmelt_trainer.contract.run import Elastic, WorkerCount

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


class Resources(Contract):
    """Compute resources of one worker, as in a container."""

    requests: ResourceList = {}
    """What the worker reserves, for instance {cpu: 4, memory: 16Gi}."""
    limits: ResourceList = {}
    """What the worker may use at most, for instance {nvidia.com/gpu: 1}."""


class Workers(Contract):
    """The Ray Train workers, one pod each under KubeRay."""

    replicas: WorkerCount = 1
    """How many workers train together. Leave it out where `elastic` says so."""
    elastic: Elastic | None = None
    """Bounds for a number of workers that changes: the job starts with the fewest, and takes what it gets up to the
    most. The global batch stays the same."""
    resources: Resources = Resources()
    """Resources of each worker. A limit of nvidia.com/gpu makes it train on GPUs."""

    rules = (
        # The API server fills in the default before it checks, so that 1 cannot be told from nothing.
        Rule(
            field="replicas",
            holds=lambda self: self.elastic is None or self.replicas == 1,
            cel="!has(self.elastic) || self.replicas == 1",
            message="spec.workers.replicas means nothing beside elastic: leave it out, or leave elastic out",
        ),
    )
