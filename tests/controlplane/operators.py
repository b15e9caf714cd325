"""Operators for the tests: real processes with the rights of hack/kube/rbac.yaml."""

from __future__ import annotations

from pathlib import Path

from hack.kube import ControlPlane
from hack.localoperator import LocalOperator


def kuberay_operator(plane: ControlPlane, namespace: str, log: Path, **settings: str | Path) -> LocalOperator:
    """An operator with the KubeRay launcher that serves one namespace; not started yet."""
    image = "registry.invalid/snowmelt-trainer:test"
    given: dict[str, str | Path] = {"launcher": "kuberay", "namespaces": namespace, "trainer_image": image}
    return LocalOperator(plane, log, **(given | settings))
