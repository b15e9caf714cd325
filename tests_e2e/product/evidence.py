"""What one needs to see why a test failed, in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.world import SYSTEM, World

KUBERAY = "kuberay-system"
KINDS = "finetunejobs,rayjobs,rayclusters,jobs,pods,services,persistentvolumeclaims,events"


def keep(world: World, namespaces: list[str], folder: Path) -> None:
    """Write objects, descriptions, events and logs of all containers to `folder`; and a made cluster's own logs."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(world, folder / "nodes.txt", "describe", "nodes")
    for namespace in (*namespaces, SYSTEM, KUBERAY):
        into = folder / namespace
        into.mkdir(exist_ok=True)
        _write(world, into / "objects.yaml", "get", KINDS, "-n", namespace, "-o", "yaml")
        _write(world, into / "events.txt", "get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
        _write(world, into / "pods.txt", "describe", "pods", "-n", namespace)
        for pod in _pods(world, namespace):
            log = ("logs", "-n", namespace, pod, "--all-containers", "--prefix", "--tail=4000")
            _write(world, into / f"{pod.removeprefix('pod/')}.log", *log)
            _write(world, into / f"{pod.removeprefix('pod/')}.previous.log", *log, "--previous")
    if world.made is None:
        return
    for log in (world.made.directory / "log").glob("*.log"):
        shutil.copy(log, folder / f"cluster-{log.name}")


def _pods(world: World, namespace: str) -> list[str]:
    try:
        return world.kubectl("get", "pods", "-n", namespace, "-o", "name").split()
    except ControlPlaneError:
        return []


def _write(world: World, file: Path, *command: str) -> None:
    """What is not there is not missed: the API server itself may be away."""
    try:
        text = world.kubectl(*command)
    except ControlPlaneError as error:
        text = f"{error}\n"
        if "--previous" in command:
            return
    file.write_text(text)
