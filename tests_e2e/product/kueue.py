"""Kueue beside the product: its own chart and manager, with one queue that takes what our jobs ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hack.kube.binaries import KUEUE, find_kueue, kueue_chart
from hack.kube.cluster.oci import write_image
from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.jobs import SLOT
from tests_e2e.product.world import READY_WITHIN_S, Namespace, World

SYSTEM = "kueue-system"
QUEUE = "team"
REPOSITORY = "localhost/snowmelt/kueue"
CONFIGURATION = """
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health: {healthProbeBindAddress: ":8081"}
metrics: {bindAddress: ":8443"}
webhook: {port: 9443}
leaderElection: {leaderElect: false}
integrations: {frameworks: [ray.io/rayjob]}
"""
MANAGER = {
    "image": {"repository": REPOSITORY, "tag": KUEUE, "pullPolicy": "IfNotPresent"},
    "resources": {"limits": {"cpu": None, "memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
}
QUOTA = {"cpu": "8", "memory": "32Gi", SLOT: "2"}


def install(world: World, folder: Path) -> None:
    """Bring Kueue to the nodes, install it by its chart, and make a ClusterQueue; waits until it takes objects."""
    archive = folder / "kueue.tar"
    write_image(
        archive, f"{REPOSITORY}:{KUEUE}", {"/manager": find_kueue()}, entrypoint=["/manager"], user="65532:65532"
    )
    world.cluster.load(archive)
    values = folder / "kueue-values.json"
    configuration = {"controllerManagerConfigYaml": CONFIGURATION}
    values.write_text(json.dumps({"controllerManager": {"manager": MANAGER}, "managerConfig": configuration}))
    world.helm(
        "upgrade", "--install", "kueue", kueue_chart(), "--namespace", SYSTEM, "--create-namespace",
        "--values", values, "--wait", f"--timeout={READY_WITHIN_S:.0f}s",
    )  # fmt: skip
    # Its webhooks answer a moment after its pod is ready, once it has made their certificate.
    eventually(lambda: _takes(world, _flavor(), _cluster_queue()), "Kueue takes no queue", READY_WITHIN_S, 1.0)


def uninstall(world: World) -> None:
    """Take it away again, webhooks and all. Its own objects first: it alone takes their finalizers off."""
    world.kubectl("delete", "clusterqueue,resourceflavor", "--all", "--ignore-not-found", "--timeout=60s")
    world.helm("uninstall", "kueue", "--namespace", SYSTEM, "--wait")


def open_queue(namespace: Namespace) -> None:
    """A LocalQueue in the namespace."""
    spec = {"clusterQueue": QUEUE}
    metadata = {"name": QUEUE, "namespace": namespace.name}
    namespace.world.apply({"apiVersion": API, "kind": "LocalQueue", "metadata": metadata, "spec": spec})


def hold(world: World, policy: str) -> None:
    """Set the queue's stopPolicy: None, Hold, or HoldAndDrain, which takes back what it gave."""
    patch = json.dumps({"spec": {"stopPolicy": policy}})
    world.kubectl("patch", "clusterqueue", QUEUE, "--type=merge", "-p", patch)


API = "kueue.x-k8s.io/v1beta2"


def _flavor() -> dict[str, Any]:
    return {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "default"}}


def _cluster_queue() -> dict[str, Any]:
    quota = [{"name": name, "nominalQuota": amount} for name, amount in QUOTA.items()]
    group = {"coveredResources": list(QUOTA), "flavors": [{"name": "default", "resources": quota}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group], "stopPolicy": "Hold"}
    return {"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": QUEUE}, "spec": spec}


def _takes(world: World, *documents: dict[str, Any]) -> bool:
    try:
        world.apply(*documents)
    except ControlPlaneError:
        return False
    return True
