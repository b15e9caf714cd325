"""What goes wrong in clusters, brought about on purpose. Each returns once the fault is over."""

from __future__ import annotations

import json
import time
from typing import Any

from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.world import READY_WITHIN_S, RELEASE, SYSTEM, World

API_SERVER, ETCD = "control-plane/kube-apiserver", "control-plane/etcd"
KUBERAY = ("deployment/kuberay-operator", "-n", "kuberay-system")


def kill_operator(world: World) -> str:
    """End the operator's leader as a crash would, without a goodbye; its pod's name."""
    lease = world.kubectl.get("lease", RELEASE, "-n", SYSTEM)
    leader = str(lease["spec"].get("holderIdentity", "")) or str(world.operator_pods()[0]["metadata"]["name"])
    world.kubectl("delete", "pod", leader, "-n", SYSTEM, "--grace-period=0", "--force", "--ignore-not-found")
    return leader


def without_api_server(world: World, seconds: float) -> None:
    """kube-apiserver is gone for so long."""
    world.cluster.stop(API_SERVER)
    time.sleep(seconds)
    world.cluster.start(API_SERVER)
    await_api_server(world)


def restart_etcd(world: World) -> None:
    """etcd ends and starts again with the data it had."""
    world.cluster.stop(ETCD)
    world.cluster.start(ETCD)
    await_api_server(world)


def without_kuberay(world: World, seconds: float) -> None:
    """KubeRay's operator is gone for so long."""
    world.kubectl("scale", *KUBERAY, "--replicas=0")
    time.sleep(seconds)
    world.kubectl("scale", *KUBERAY, "--replicas=1")
    world.kubectl("rollout", "status", *KUBERAY, f"--timeout={READY_WITHIN_S:.0f}s")


def without_progress_endpoint(world: World, seconds: float) -> None:
    """The Service through which trainers reach the operator is gone for so long."""
    service = world.kubectl.get("service", RELEASE, "-n", SYSTEM)
    world.kubectl("delete", "service", RELEASE, "-n", SYSTEM)
    time.sleep(seconds)
    world.kubectl("create", "-f", "-", stdin=json.dumps(_as_new(service)))


def pull_the_plug(world: World, node: str, *, missed: bool = True) -> None:
    """A node dies at once, is missed, and boots again."""
    world.cluster.stop(node)
    if missed:
        eventually(lambda: not is_ready(world, node), f"nobody misses {node}", READY_WITHIN_S)
    world.cluster.start(node)
    eventually(lambda: is_ready(world, node), f"{node} does not come back", READY_WITHIN_S)


def is_ready(world: World, node: str) -> bool:
    conditions = world.kubectl.get("node", node)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def await_api_server(world: World) -> None:
    eventually(lambda: _answers(world), "kube-apiserver does not come back", READY_WITHIN_S)


def _answers(world: World) -> bool:
    try:
        return world.kubectl("get", "--raw=/readyz").strip() == "ok"
    except ControlPlaneError:
        return False


def _as_new(service: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: service["metadata"].get(key, {}) for key in ("name", "namespace", "labels", "annotations")}
    spec = {key: service["spec"][key] for key in ("type", "selector", "ports")}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
