"""Jobs on a cluster, as whoever applied them sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from hack.demo.inputs import EXAMPLES
from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.folders import Folder

if TYPE_CHECKING:
    from tests_e2e.product.world import Namespace

ASKS_EVERY_S = 0.5
"""How often kubectl asks for a job that trains: the machine is the one that it trains on."""
SLOT = "snowmelt.dev/slot"
"""A made-up resource of which each node has one, so that two workers never share one: requests of CPU do not keep
them apart on nodes that have hardly more of it than the head asks for."""


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
    def output(self) -> Folder:
        return self.namespace.folder("models") / self.name

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
        for state in reversed(list(self.output.found(".snowmelt/*/checkpoints/s*/state.json"))):
            try:
                return len(json.loads(self.output.read(state))["history"])
            except (OSError, ValueError, ControlPlaneError):
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
