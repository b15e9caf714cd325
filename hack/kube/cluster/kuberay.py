"""KubeRay's operator, from the manifests that its own Go module ships, as a pod of the image that we made."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hack.kube.binaries import KUBERAY, kuberay_config, kuberay_crds
from hack.kube.cluster.images import KUBERAY_REPOSITORY
from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError, Kubectl

NAMESPACE = "kuberay-system"
DEPLOYMENT = "deployment/kuberay-operator"
READY_WITHIN_S = 120.0
_CONTAINER = "/spec/template/spec/containers/0"
PATCH = [
    # On a small machine its 0.1 CPU makes it slow to start, and its probes wait ten seconds without need.
    {"op": "remove", "path": f"{_CONTAINER}/resources/limits/cpu"},
    {"op": "replace", "path": f"{_CONTAINER}/resources/requests/memory", "value": "128Mi"},
    {"op": "replace", "path": f"{_CONTAINER}/readinessProbe/initialDelaySeconds", "value": 1},
    {"op": "replace", "path": f"{_CONTAINER}/readinessProbe/periodSeconds", "value": 1},
    {"op": "replace", "path": f"{_CONTAINER}/readinessProbe/failureThreshold", "value": 30},
]


def install(kubectl: Kubectl, folder: Path) -> None:
    """Apply CRDs, roles and the operator; does not wait for it."""
    folder.mkdir(exist_ok=True)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(kuberay_config() / base, folder.resolve()) for base in ("rbac", "manager")],
        "images": [{"name": "kuberay/operator", "newName": KUBERAY_REPOSITORY, "newTag": KUBERAY}],
        "patches": [{"target": {"kind": "Deployment", "name": "kuberay-operator"}, "patch": json.dumps(PATCH)}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=1))
    kubectl.install_crds(*kuberay_crds())
    kubectl("apply", "--server-side", "--force-conflicts", "-k", folder)


def await_ready(kubectl: Kubectl) -> None:
    """Wait until the operator's pod is ready.

    Raises:
        ControlPlaneError: it is not within two minutes; with what the pods' conditions say.
    """
    try:
        eventually(lambda: _is_ready(kubectl), "KubeRay's operator is not ready", READY_WITHIN_S)
    except ControlPlaneError as error:
        pods = kubectl("describe", "pods", "-n", NAMESPACE)
        raise ControlPlaneError(f"{error}; its pods:\n{pods}") from None


def _is_ready(kubectl: Kubectl) -> bool:
    status = kubectl.get(DEPLOYMENT, "-n", NAMESPACE).get("status", {})
    return int(status.get("readyReplicas", 0)) > 0
