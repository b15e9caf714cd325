"""Small pods for the tests of the cluster."""

from __future__ import annotations

import json
from typing import Any

from hack.kube.cluster import Cluster
from hack.kube.controlplane import eventually
from tests_e2e.cluster.conftest import BUSYBOX

FINISHES_WITHIN_S = 90.0
OVER = ("Succeeded", "Failed")


def shell(name: str, node: str, script: str, *, claim: str | None = None) -> dict[str, Any]:
    """A pod on `node` that runs a busybox script; `claim` is mounted at /data."""
    container: dict[str, Any] = {
        "name": "shell",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["/bin/busybox", "sh", "-c", script],
    }
    spec: dict[str, Any] = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def apply(cluster: Cluster, *manifests: dict[str, Any]) -> None:
    kubectl = cluster.kubectl()
    for manifest in manifests:
        kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def finish(cluster: Cluster, pod: dict[str, Any]) -> tuple[str, str]:
    """Run a pod to its end; its phase and what it printed."""
    apply(cluster, pod)
    name = pod["metadata"]["name"]
    eventually(lambda: phase(cluster, name) in OVER, f"pod {name} does not end", FINISHES_WITHIN_S)
    return phase(cluster, name), cluster.kubectl()("logs", name)


def phase(cluster: Cluster, name: str) -> str:
    return str(cluster.kubectl().get("pod", name)["status"]["phase"])
