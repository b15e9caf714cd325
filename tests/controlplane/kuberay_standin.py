"""KubeRay's part, played on real RayJob objects: its documented status transitions, with every trap they have.

What is written when follows ray-operator v1.6.2, controllers/ray/rayjob_controller.go. No pods run.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.controlplane.api import Api, Object

FINALIZER = "ray.io/rayjob-finalizer"
"""KubeRay puts it on every RayJob, and takes it off once the Ray job is stopped."""


class KubeRayStandIn:
    """Plays KubeRay for the RayJobs of one namespace, a transition a call; a RayJob is awaited before it is touched."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def initializes(self, name: str) -> Object:
        """KubeRay has taken the RayJob on: finalizer, ids, the cluster not yet up."""
        self._api.until("rayjobs", name, lambda _: True)
        self._api.patch("rayjobs", name, {"metadata": {"finalizers": [FINALIZER]}})
        return self.says(
            name,
            jobDeploymentStatus="Initializing",
            jobId=f"{name}-xyz12",
            rayClusterName=f"{name}-abc34",
            startTime=_now(),
        )

    def makes_the_cluster(self, name: str) -> Object:
        """The RayCluster of a RayJob: its spec as it stands there."""
        rayjob = self._api.until("rayjobs", name, lambda _: True)
        manifest = {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": {"name": f"{name}-abc34"},
            "spec": rayjob["spec"]["rayClusterSpec"],
        }
        return self._api.create("rayclusters", manifest)

    def workers_of(self, name: str) -> int:
        """How many pods the RayCluster of a RayJob is to have in its worker group."""
        cluster = self._api.until("rayclusters", f"{name}-abc34", lambda _: True)
        return int(cluster["spec"]["workerGroupSpecs"][0]["replicas"])

    def awaits_its_submitter(self, name: str) -> Object:
        """The head is ready, and KubeRay has made the Job whose pod brings it the Ray job."""
        self.initializes(name)
        return self.says(name, jobDeploymentStatus="Running", rayClusterStatus={"head": {"podName": f"{name}-head"}})

    def runs(self, name: str) -> Object:
        """From the cluster coming up to the Ray job running."""
        self.awaits_its_submitter(name)
        self.says(name, jobStatus="PENDING", rayClusterStatus={"state": "ready"})
        return self.says(name, jobStatus="RUNNING", message="Job is currently running.", dashboardURL=f"{name}:8265")

    def ends(self, name: str, job_status: str, deployment: str, **more: Any) -> Object:
        return self.says(name, jobStatus=job_status, jobDeploymentStatus=deployment, endTime=_now(), **more)

    def cannot_make_pods(self, name: str, words: str) -> Object:
        """The API server refused a pod: the RayCluster's condition says so, and the RayJob's status repeats it."""
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateWorkerPod"}
        failure |= {"message": f"FailedCreateWorkerPod\n{words}", "lastTransitionTime": _now()}
        return self.says(name, rayClusterStatus={"conditions": [failure]})

    def is_suspended(self, name: str) -> Object:
        """Kueue's webhook set spec.suspend when the RayJob was created; KubeRay makes no cluster for it."""
        self._api.until("rayjobs", name, lambda _: True)
        self._api.patch("rayjobs", name, {"spec": {"suspend": True}})
        return self.says(name, jobDeploymentStatus="Suspended")

    def is_admitted(self, name: str) -> Object:
        self._api.patch("rayjobs", name, {"spec": {"suspend": False}})
        return self.runs(name)

    def vanishes(self, name: str) -> None:
        """Somebody deleted the RayJob, and KubeRay has let it go."""
        self._api.delete("rayjobs", name)
        self.lets_go(name)

    def lets_go(self, name: str) -> None:
        """The Ray job of a deleted RayJob is stopped: the finalizer goes, and the object with it."""
        self._api.until("rayjobs", name, lambda rayjob: "deletionTimestamp" in rayjob["metadata"])
        self._api.patch("rayjobs", name, {"metadata": {"finalizers": None}})
        self._api.until_gone("rayjobs", name)

    def says(self, name: str, **status: Any) -> Object:
        """Write these fields of the RayJob's status and leave the others, stale ones included, as they are."""
        return self._api.patch("rayjobs", name, {"status": status}, subresource="status")

    def token_of(self, name: str) -> str:
        """What the head pod would read from the mounted Secret."""
        return self._mounted(name, "token")

    def config_of(self, name: str) -> str:
        return self._mounted(name, "config.json")

    def _mounted(self, name: str, key: str) -> str:
        secret = self._api.until("secrets", name, lambda _: True)
        return base64.b64decode(secret["data"][key]).decode()


def collect_garbage(api: Api) -> list[str]:
    """Kubernetes' garbage collector, for one namespace: delete what names only owners that exist no longer."""
    living = {job["metadata"]["uid"] for job in api.list("finetunejobs")}
    collected = []
    for resource in ("rayjobs", "secrets"):
        for item in api.list(resource):
            owners = item["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in living for owner in owners):
                try:
                    api.delete(resource, item["metadata"]["name"])
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != 404:
                        raise
                collected.append(f"{resource}/{item['metadata']['name']}")
    return collected


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
