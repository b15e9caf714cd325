"""A cluster of the reader's own: what the tests need of it, and how they leave it as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.kube.helm import Helm
from hack.kube.kubectl import ControlPlaneError, Kubectl
from tests_e2e.product.jobs import SLOT
from tests_e2e.product.world import CRD, RELEASE, SYSTEM, World

IMAGES = ("SNOWMELT_E2E_OPERATOR_IMAGE", "SNOWMELT_E2E_TRAINER_IMAGE")
"""Where the cluster pulls both images from, as NAME:TAG."""


class NotUsableError(Exception):
    """The cluster lacks what the tests need; the message says what, and what to do."""


@contextmanager
def borrowed(kubeconfig: Path, workspace: Path) -> Iterator[World]:
    """The product installed on the cluster of `kubeconfig`; afterwards it is gone, with its CRD and its namespace.

    Raises:
        NotUsableError: something is missing there or here, or Snowmelt is there already.
    """
    kubectl = Kubectl(_command("kubectl"), kubeconfig)
    helm = Helm(_command("helm"), workspace, kubeconfig)
    operator, trainer = (_image(variable) for variable in IMAGES)
    _refuse_what_is_in_use(kubectl)
    world = World(kubectl, helm, _two_nodes(kubectl), operator, trainer, workspace)
    try:
        world.prepare()
        yield world
    finally:
        _give_back(world)


def _give_back(world: World) -> None:
    """Everything the tests brought, also what a failed one left."""
    world.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=120s")
    world.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    world.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=120s")
    for node in world.nodes:
        removal = [{"op": "remove", "path": f"/status/{part}/{_pointer(SLOT)}"} for part in ("capacity", "allocatable")]
        world.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(removal))


def _pointer(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _refuse_what_is_in_use(kubectl: Kubectl) -> None:
    try:
        found = kubectl("get", "crd", CRD, "rayjobs.ray.io", "--ignore-not-found", "-o", "name")
    except ControlPlaneError as error:
        raise NotUsableError(f"the cluster does not answer: {error}") from error
    if CRD in found:
        raise NotUsableError(
            f"the cluster has the CRD {CRD} already: these tests install and remove it, and with it every FineTuneJob;"
            " use a cluster without Snowmelt"
        )
    if "rayjobs.ray.io" not in found:
        raise NotUsableError("the cluster has no KubeRay (CRD rayjobs.ray.io): install KubeRay 1.6 or newer first")


def _two_nodes(kubectl: Kubectl) -> tuple[str, ...]:
    """Names of two nodes that take pods."""
    nodes = kubectl.get("nodes")["items"]
    ready = [
        str(node["metadata"]["name"])
        for node in nodes
        if not node["spec"].get("unschedulable")
        and not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints", []))
        and any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    ]
    if len(ready) < 2:
        raise NotUsableError(f"two nodes that are Ready and without taints are needed; there are {len(ready)}")
    return tuple(ready[:2])


def _image(variable: str) -> str:
    name = os.environ.get(variable, "")
    if ":" not in name.rpartition("/")[2]:
        raise NotUsableError(f"set {variable} to the image that the cluster can pull, as NAME:TAG (it is {name!r})")
    return name


def _command(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise NotUsableError(f"{name} is not on PATH")
    return Path(found)
