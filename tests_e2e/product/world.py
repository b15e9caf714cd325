"""The product on a cluster: installed by Helm, with namespaces for jobs and claims that hold what they read."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.demo.inputs import EXAMPLES, fill_volumes
from hack.images import Images, load
from hack.kube.binaries import find_helm
from hack.kube.cluster import Cluster
from hack.kube.controlplane import eventually
from hack.kube.helm import CHART, Helm
from hack.kube.kubectl import ControlPlaneError, Kubectl
from tests_e2e.product.folders import Folder, FolderHere, FolderInPod
from tests_e2e.product.jobs import SLOT, Job

REPOSITORY = EXAMPLES.parent
RELEASE, SYSTEM = "snowmelt", "snowmelt-system"
OPERATOR_PODS = ("-n", SYSTEM, "-l", f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator")
READY_WITHIN_S = 240.0
CRD = "finetunejobs.snowmelt.dev"
CLAIMS = ("digits", "backbones", "models")
WINDOW = "window"
"""The pod of a namespace through which its claims are seen, where this machine does not see them."""


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What a container says of itself under Pod Security level restricted."""


@dataclass(frozen=True)
class World:
    """A cluster with the product on it."""

    kubectl: Kubectl
    helm: Helm
    nodes: tuple[str, ...]
    """Names of the two nodes that workers go to."""
    operator_image: str
    trainer_image: str
    workspace: Path
    made: Cluster | None = None
    """The cluster that was made for these tests, which they may break; None for the reader's own."""

    @classmethod
    def on(cls, cluster: Cluster, images: Images, workspace: Path) -> World:
        """On a cluster made for it, with the images loaded."""
        load(cluster, images.layout, images.names)
        nodes = tuple(node.place.name for node in cluster.nodes)
        helm = Helm(find_helm(), workspace, cluster.kubeconfig)
        world = cls(cluster.kubectl(), helm, nodes, images.operator, images.trainer, workspace, cluster)
        world.prepare()
        return world

    @property
    def cluster(self) -> Cluster:
        """The cluster, for what is done to a cluster that was made for it.

        Raises:
            ControlPlaneError: it is somebody's own.
        """
        if self.made is None:
            raise ControlPlaneError("this test breaks clusters and ran on one not made for it: mark it `breaks`")
        return self.made

    @property
    def inputs(self) -> Path:
        """The folders that claims of the same names are filled from."""
        return self.workspace / "inputs"

    def prepare(self) -> None:
        """Lay out the nodes, install the chart and wait until the operator is ready."""
        fill_volumes(self.inputs)
        for node in self.nodes:
            self.advertise(node, SLOT, 1)
        self.install()

    def install(self, chart: Path = CHART, images: tuple[str, str] | None = None) -> None:
        """`helm install`, or upgrade, and wait for the operator's pods; by default of what the tests are about."""
        values = image_values(*images or (self.operator_image, self.trainer_image))
        self.helm(
            "upgrade", "--install", RELEASE, chart, "--namespace", SYSTEM, "--create-namespace",
            "--wait", f"--timeout={READY_WITHIN_S:.0f}s",
            values=values | {"podAnnotations": {"made": str(time.time())}},
        )  # fmt: skip

    def uninstall(self) -> str:
        """`helm uninstall`, and what it said."""
        return self.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait")

    def upgrade(self, values: dict[str, Any]) -> None:
        """`helm upgrade` as docs/install.md has it, with these values over those that are there; waits for the pods."""
        self.helm(
            "upgrade", RELEASE, CHART, "--namespace", SYSTEM, "--reset-then-reuse-values",
            "--wait", f"--timeout={READY_WITHIN_S:.0f}s",
            values=values,
        )  # fmt: skip
        self.await_operator()

    def advertise(self, node: str, resource: str, number: int) -> None:
        """Let a node say that it has so many of a resource; a kubelet leaves resources that it does not know alone."""
        patch = {"status": {"capacity": {resource: str(number)}, "allocatable": {resource: str(number)}}}
        self.kubectl("patch", "node", node, "--subresource=status", "-p", json.dumps(patch))

    def crd(self) -> Any:
        """The CRD, as the API server has it."""
        return self.kubectl.get("crd", CRD)

    def namespace(self, name: str, claims: Sequence[str] = CLAIMS) -> Namespace:
        """A new namespace under Pod Security level restricted, with claims that hold what the examples read."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        namespace = Namespace(self, name)
        for claim in claims:
            self.apply(_claim(claim, name))
        if self.made is None:
            self.apply(_window(name, claims, self.trainer_image))
            self.kubectl("wait", "-n", name, "--for=condition=Ready", f"pod/{WINDOW}", f"--timeout={READY_WITHIN_S}s")
        for claim in claims:
            eventually(lambda claim=claim: namespace.bound(claim), f"claim {name}/{claim} is not bound", 60.0)
            if (self.inputs / claim).is_dir():
                namespace.folder(claim).fill(self.inputs / claim)
        return namespace

    def apply(self, *documents: dict[str, Any]) -> None:
        for document in documents:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def operator_pods(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = self.kubectl.get("pods", *OPERATOR_PODS)["items"]
        return pods

    def await_operator(self) -> None:
        """Until every replica of the operator that should run is ready, and the API server answers."""
        eventually(self._operator_is_ready, "the operator is not ready", READY_WITHIN_S)

    def _operator_is_ready(self) -> bool:
        try:
            deployment = self.kubectl.get("deployment", RELEASE, "-n", SYSTEM)
        except ControlPlaneError:
            return False
        status = deployment.get("status", {})
        return bool(status.get("readyReplicas", 0) == deployment["spec"]["replicas"] == status.get("updatedReplicas"))


def image_values(operator: str, trainer: str) -> dict[str, Any]:
    """The chart's values for two images, given as NAME:TAG."""
    parts = (dict(zip(("repository", "tag"), name.rsplit(":", 1), strict=True)) for name in (operator, trainer))
    return {"image": next(parts), "trainer": {"image": next(parts)}}


@dataclass(frozen=True)
class Namespace:
    """One namespace of jobs."""

    world: World
    name: str

    @property
    def kubectl(self) -> Kubectl:
        return self.world.kubectl

    def get(self, *words: str) -> Any:
        return self.kubectl.get(*words, "-n", self.name)

    def bound(self, claim: str) -> bool:
        return bool(self.get("pvc", claim).get("status", {}).get("phase") == "Bound")

    def volume(self, claim: str) -> Path:
        """The folder of this machine that a claim stands for, on a cluster made here."""
        return self.world.cluster.volumes / str(self.get("pvc", claim)["spec"]["volumeName"])

    def folder(self, claim: str) -> Folder:
        """What lies on a claim."""
        if self.world.made is not None:
            return FolderHere(self.volume(claim))
        return FolderInPod(self.kubectl, self.name, WINDOW, f"/claims/{claim}")

    def pods_of_jobs(self) -> list[dict[str, Any]]:
        """All pods but the one that shows us its claims."""
        pods: list[dict[str, Any]] = self.get("pods", f"--field-selector=metadata.name!={WINDOW}")["items"]
        return pods

    def apply(self, job: dict[str, Any]) -> Job:
        """`kubectl apply` of a FineTuneJob in this namespace."""
        self.kubectl("apply", "-n", self.name, "-f", "-", stdin=json.dumps(job))
        return Job(self, str(job["metadata"]["name"]))

    def delete(self) -> None:
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")


def _claim(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def _window(namespace: str, claims: Sequence[str], image: str) -> dict[str, Any]:
    container = {
        "name": WINDOW,
        "image": image,
        "command": ["sleep", "infinity"],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": claim, "mountPath": f"/claims/{claim}"} for claim in claims],
    }
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": WINDOW, "namespace": namespace}, "spec": spec}
