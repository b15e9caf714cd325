"""Operators for the tests: real processes with the rights of hack/kube/rbac.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.kube import ControlPlane
from hack.localoperator import LocalOperator
from tests.controlplane.api import Api
from tests.controlplane.kuberay_standin import KubeRayStandIn


@dataclass(frozen=True)
class Served:
    """A namespace, the operator that serves it, and who plays KubeRay there."""

    api: Api
    kuberay: KubeRayStandIn
    operator: LocalOperator

    def rayjobs_of(self, job: str) -> list[str]:
        """Names of the RayJobs that exist for the FineTuneJob."""
        names = [rayjob["metadata"]["name"] for rayjob in self.api.list("rayjobs")]
        return sorted(name for name in names if name.startswith(f"{job}-a"))


def kuberay_operator(plane: ControlPlane, namespace: str, log: Path, **settings: str | Path) -> LocalOperator:
    """An operator with the KubeRay launcher that serves one namespace; not started yet."""
    image = "registry.invalid/snowmelt-trainer:test"
    given: dict[str, str | Path] = {"launcher": "kuberay", "namespaces": namespace, "trainer_image": image}
    given |= {"retry_base_seconds": "0.5"}
    return LocalOperator(plane, log, **(given | settings))
