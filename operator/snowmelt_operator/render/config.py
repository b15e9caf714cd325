"""FineTuneJobSpec -> RunConfig. The command line uses it too."""

from __future__ import annotations

from decimal import Decimal

from snowmelt_operator.api.quantity import parse_quantity
from snowmelt_operator.api.v1alpha1 import FineTuneJobSpec
from snowmelt_operator.api.workers import Resources
from snowmelt_trainer.contract.run import JobIdentity, ProgressEndpoint, RunConfig, WorkerGroup

GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")


def run_config(
    spec: FineTuneJobSpec, identity: JobIdentity, *, progress: ProgressEndpoint | None, volumes_root: str
) -> RunConfig:
    """What one attempt is told.

    Raises:
        ValueError: for a resource that is not a quantity.
    """
    return RunConfig(
        job=identity,
        backbone=spec.backbone,
        data=spec.data,
        unfreezing=spec.unfreezing,
        optimization=spec.optimization,
        output=spec.output,
        workers=worker_group(spec),
        progress=progress,
        volumes_root=volumes_root,
    )


def worker_group(spec: FineTuneJobSpec) -> WorkerGroup:
    """The Ray Train workers, with what each of them reserves in Ray: whole CPUs, or a share of one."""
    resources = spec.workers.resources
    cpus = _amount(resources, "cpu") or Decimal(1)
    gpus = sum((_amount(resources, name) for name in GPU_RESOURCES), Decimal(0))
    return WorkerGroup(
        replicas=spec.workers.replicas,
        elastic=spec.workers.elastic,
        cpus=float(cpus if cpus < 1 else int(cpus)),
        gpus=int(gpus),
    )


def _amount(resources: Resources, name: str) -> Decimal:
    """What is requested, or the limit where no request is given, as Kubernetes defaults it."""
    return parse_quantity(resources.requests.get(name, resources.limits.get(name, 0)))


def progress_url(base_url: str, namespace: str, name: str) -> str:
    """Where the trainer of a job posts its progress."""
    return f"{base_url.rstrip('/')}/v1/namespaces/{namespace}/finetunejobs/{name}/progress"
