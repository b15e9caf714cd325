"""The product on a cluster: installed by Helm, with namespaces for jobs and claims that hold what they read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hack.demo.inputs import EXAMPLES, fill_volumes
from hack.images import Images, load
from hack.kube.binaries import find_helm
from hack.kube.cluster import Cluster
from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError, Kubectl

REPOSITORY = EXAMPLES.parent
CHART = REPOSITORY / "charts" / "snowmelt"
RELEASE, SYSTEM = "snowmelt", "snowmelt-system"
OPERATOR_PODS = ("-n", SYSTEM, "-l", f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator")
SLOT = "snowmelt.dev/slot"
"""A made-up resource of which each node has one, so that two workers never share one: requests of CPU do not keep
them apart on nodes that have hardly more of it than the head asks for."""
READY_WITHIN_S = 240.0
ASKS_EVERY_S = 0.5
"""How often kubectl asks for a job that trains: the machine is the one that it trains on."""
CLAIMS = ("digits", "backbones", "models")


@dataclass(frozen=True)
class World:
    """A cluster with the product on it."""

    cluster: Cluster
    kubectl: Kubectl
    inputs: Path
    """The folders that the claims `digits` and `backbones` are filled from."""

    @classmethod
    def prepare(cls, cluster: Cluster, images: Images, workspace: Path) -> World:
        """Load the images, lay out the nodes, install the chart and wait until the operator is ready."""
        load(cluster, images.layout, (images.operator, images.trainer))
        world = cls(cluster, cluster.kubectl(), workspace / "inputs")
        fill_volumes(world.inputs)
        for node in cluster.nodes:
            world.advertise(node.place.name, SLOT, 1)
        world.install(images)
        return world

    def helm(self, *words: str | Path) -> str:
        """Run helm against the cluster.

        Raises:
            ControlPlaneError: helm refused; the message is what it said.
        """
        command = [str(find_helm()), *(str(word) for word in words)]
        environment = {"KUBECONFIG": str(self.cluster.kubeconfig), "HOME": str(self.inputs.parent)}
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ControlPlaneError(f"helm {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def install(self, images: Images) -> None:
        """`helm install`, or upgrade, and wait for the operator's pods."""
        operator, trainer = (name.rsplit(":", 1) for name in (images.operator, images.trainer))
        values = {
            "image": {"repository": operator[0], "tag": operator[1]},
            "trainer": {"image": {"repository": trainer[0], "tag": trainer[1]}},
            "podAnnotations": {"made": str(time.time())},
        }
        file = self.inputs.parent / "values.json"
        file.write_text(json.dumps(values))
        self.helm(
            "upgrade", "--install", RELEASE, CHART, "--namespace", SYSTEM, "--create-namespace",
            "--values", file, "--wait", f"--timeout={READY_WITHIN_S:.0f}s",
        )  # fmt: skip

    def advertise(self, node: str, resource: str, number: int) -> None:
        """Let a node say that it has so many of a resource; a kubelet leaves resources that it does not know alone."""
        patch = {"status": {"capacity": {resource: str(number)}, "allocatable": {resource: str(number)}}}
        self.kubectl("patch", "node", node, "--subresource=status", "-p", json.dumps(patch))

    def namespace(self, name: str, claims: Sequence[str] = CLAIMS) -> Namespace:
        """A new namespace under Pod Security level restricted, with claims that hold what the examples read."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        namespace = Namespace(self, name)
        for claim in claims:
            self.apply(_claim(claim, name))
        for claim in claims:
            eventually(lambda claim=claim: namespace.bound(claim), f"claim {name}/{claim} is not bound", 60.0)
            if (self.inputs / claim).is_dir():
                shutil.copytree(self.inputs / claim, namespace.volume(claim), dirs_exist_ok=True)
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
        """The folder of this machine that a claim stands for."""
        return self.world.cluster.volumes / str(self.get("pvc", claim)["spec"]["volumeName"])

    def apply(self, job: dict[str, Any]) -> Job:
        """`kubectl apply` of a FineTuneJob in this namespace."""
        self.kubectl("apply", "-n", self.name, "-f", "-", stdin=json.dumps(job))
        return Job(self, str(job["metadata"]["name"]))

    def delete(self) -> None:
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")


@dataclass(frozen=True)
class Job:
    """A FineTuneJob that was applied."""

    namespace: Namespace
    name: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = self.namespace.get("finetunejob", self.name)
        return document

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.document.get("status", {})
        return status

    def incident(self, reason: str) -> dict[str, Any]:
        """What status.incidents has of a reason; empty when there is none."""
        return next((one for one in self.status.get("incidents", []) if one["reason"] == reason), {})

    def events(self, reason: str) -> list[dict[str, Any]]:
        """The Events of this FineTuneJob that have a reason."""
        of_ours = f"involvedObject.kind=FineTuneJob,involvedObject.name={self.name},reason={reason}"
        events: list[dict[str, Any]] = self.namespace.get("events", f"--field-selector={of_ours}")["items"]
        return events

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    @cached_property
    def output(self) -> Path:
        return self.namespace.volume("models") / self.name

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the status; empty when there is none of that type."""
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    def rayjobs(self) -> list[str]:
        """Names of the RayJobs that exist for this job."""
        items = self.namespace.get("rayjobs", "-l", f"snowmelt.dev/job={self.name}")["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def pods(self, kind: str = "") -> list[dict[str, Any]]:
        """The job's pods; `kind` is head or worker, or empty for all of them."""
        selector = f"snowmelt.dev/job={self.name}" + (f",ray.io/node-type={kind}" if kind else "")
        pods: list[dict[str, Any]] = self.namespace.get("pods", "-l", selector)["items"]
        return pods

    def await_epoch(self, epochs: int, within_s: float = 600.0) -> None:
        """Until so many epochs in all have been checkpointed."""
        complaint = f"{self.name} has no {epochs} epochs"
        eventually(lambda: self.epochs() >= epochs or self._over(), complaint, within_s, ASKS_EVERY_S)
        assert self.epochs() >= epochs, self.status

    def epochs(self) -> int:
        """Finished epochs, as the newest checkpoint in the job's storage has them; 0 when there is none."""
        states = sorted(self.output.glob(".snowmelt/*/checkpoints/s*/state.json"))
        for state in reversed(states):
            try:
                return len(json.loads(state.read_text())["history"])
            except (OSError, ValueError):
                continue
        return 0

    def complete(self, within_s: float = 900.0) -> dict[str, Any]:
        """`kubectl wait --for=condition=Complete`, and the final status; fails at once when the job Failed.

        Raises:
            ControlPlaneError: it did not complete.
        """
        eventually(self.has_ended, f"{self.name} does not end", within_s, ASKS_EVERY_S)
        if self.condition("Failed").get("status") == "True":
            raise ControlPlaneError(f"{self.name} failed: {self.condition('Failed')}")
        self.namespace.kubectl(
            "wait", "-n", self.namespace.name, "--for=condition=Complete", f"finetunejob/{self.name}", "--timeout=30s"
        )
        return self.status

    def has_ended(self) -> bool:
        """Whether it is Complete or Failed; not that we know, while the API server is away."""
        try:
            return self._over()
        except ControlPlaneError:
            return False

    def _over(self) -> bool:
        return any(self.condition(kind).get("status") == "True" for kind in ("Complete", "Failed"))


def example(name: str, **spec: Any) -> dict[str, Any]:
    """A manifest of examples/, its workers on nodes of their own; `spec` replaces parts."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    document["spec"] |= spec
    resources = document["spec"].setdefault("workers", {}).setdefault("resources", {})
    resources.setdefault("limits", {})[SLOT] = "1"
    return document


def long_job(name: str, epochs: int) -> dict[str, Any]:
    """Two workers that train for exactly so many epochs."""
    unfreezing = {"strategy": "Full", "stage": {"maxEpochs": epochs, "patience": epochs}}
    job = example("digits", unfreezing=unfreezing, output={"uri": f"pvc://models/{name}"})
    job["metadata"]["name"] = name
    return job


def _claim(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
