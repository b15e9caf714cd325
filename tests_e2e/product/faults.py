"""What goes wrong in clusters, brought about on purpose. Each returns once the fault is over."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.jobs import SLOT
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


def unplug(world: World, node: str) -> None:
    """A node dies at once, and is missed."""
    world.cluster.stop(node)
    eventually(lambda: not is_ready(world, node), f"nobody misses {node}", READY_WITHIN_S)


def plug_in(world: World, node: str) -> None:
    """It boots again."""
    world.cluster.start(node)
    eventually(lambda: is_ready(world, node), f"{node} does not come back", READY_WITHIN_S)
    world.advertise(node, SLOT, 1)


class SmallDisk:
    """A file system of few MiB in place of a volume's folder, on this machine and on every node. A context manager."""

    def __init__(self, world: World, folder: Path, *, mebibytes: int) -> None:
        self._machines = [node.machine for node in world.cluster.nodes]
        self._folder, self._mebibytes = folder, mebibytes
        self._image = folder.with_suffix(".img")
        self._ballast = folder / "ballast"
        self._device = ""

    def __enter__(self) -> SmallDisk:
        self._image.touch()
        os.truncate(self._image, self._mebibytes * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("mount", self._device, str(self._folder))
        for machine in self._machines:
            # One device, one file system, wherever it is mounted.
            machine.run("mount", self._device, self._folder)
        self._folder.chmod(0o777)
        return self

    def __exit__(self, *exc: object) -> None:
        for machine in self._machines:
            machine.run("umount", "--lazy", self._folder)
        _run("umount", "--lazy", str(self._folder))
        _run("losetup", "--detach", self._device)
        self._image.unlink()

    def fill(self) -> None:
        """Leave no room on it."""
        with self._ballast.open("wb", buffering=0) as ballast:
            for size in (2**20, 4096):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def make_room(self) -> None:
        """Take that away again."""
        self._ballast.unlink()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


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
