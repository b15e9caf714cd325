"""KubeRay and the trainer, played for whatever RayJobs there are, until the operator has done all it can do."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from tests.controlplane.api import Api, Object, has
from tests.controlplane.jobs import manifest, post, succeeded
from tests.controlplane.kuberay_standin import KubeRayStandIn
from tests.controlplane.pods_standin import PodsStandIn
from tests.unit.pods.documents import container, ended, waiting

LIFE_S = 90.0
_PAUSE_S = 0.1


def play_a_life(api: Api, name: str, over: Callable[[], bool]) -> bool:
    """A FineTuneJob that needs every right of the operator; ends as soon as `over()`. True when all of it was played.

    The namespace has to be empty. A pod of the first attempt has a volume that cannot be mounted, another one fails,
    room for a second worker is asked for, and somebody deletes its RayJob; the second attempt succeeds; the time after
    it is over, and the operator deletes the job with all that is its own.
    """
    if api.get("serviceaccounts", "default") is None:
        api.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    api.create("finetunejobs", manifest(name, ttlSecondsAfterFinished=1, workers={"elastic": {"min": 1, "max": 2}}))
    kuberay = KubeRayStandIn(api)
    end = time.monotonic() + LIFE_S
    while time.monotonic() < end and not over():
        if (
            api.get("finetunejobs", name) is None
            and not api.list("rayjobs")
            and api.get("secrets", f"{name}-a2") is None
        ):
            return True
        for rayjob in api.list("rayjobs"):
            _move_on(api, kuberay, rayjob, name)
        time.sleep(_PAUSE_S)
    return False


def clear(api: Api) -> None:
    """Delete all jobs and what belongs to them, beside an operator that may do the same."""
    for resource in ("finetunejobs", "rayjobs", "rayclusters", "secrets", "pods"):
        for item in api.list(resource):
            name = item["metadata"]["name"]
            try:
                if item["metadata"].get("finalizers"):
                    api.patch(resource, name, {"metadata": {"finalizers": None}})
                api.delete(resource, name, grace_seconds=0)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise
            api.until_gone(resource, name)


def _move_on(api: Api, kuberay: KubeRayStandIn, rayjob: Object, job: str) -> None:
    rayjob_name = rayjob["metadata"]["name"]
    if "deletionTimestamp" in rayjob["metadata"]:
        kuberay.lets_go(rayjob_name)
        return
    match rayjob.get("status", {}).get("jobDeploymentStatus"):
        case None if rayjob_name.endswith("-a1"):
            kuberay.makes_the_cluster(rayjob_name)
            _pods_fail(api, rayjob_name)
            kuberay.initializes(rayjob_name)
        case "Initializing":
            if has("ClusterReady", status="False", reason="VolumeError")(api.get("finetunejobs", job) or {}):
                kuberay.runs(rayjob_name)
        case None:
            kuberay.makes_the_cluster(rayjob_name)
            kuberay.runs(rayjob_name)
        case "Running" if rayjob_name.endswith("-a1"):
            is_running = (api.get("finetunejobs", job) or {}).get("status", {}).get("phase") == "Running"
            if is_running and kuberay.workers_of(rayjob_name) == 2:
                kuberay.vanishes(rayjob_name)
        case "Running":
            try:
                taken = post(kuberay, rayjob_name, succeeded(2, 1, job))
            except httpx.TransportError:  # the operator is not there (any more)
                return
            if taken.is_success:
                kuberay.ends(rayjob_name, "SUCCEEDED", "Complete")


def _pods_fail(api: Api, rayjob: str) -> None:
    """One has a volume that cannot be mounted, and one has ended with a log that is worth reading."""
    pods = PodsStandIn(api)
    head = pods.made(rayjob)
    pods.warns(head, "FailedMount", "exit status 32")
    pods.says(head, **waiting("ContainerCreating"))
    submitter = container("ray-job-submitter", terminated=ended("Error", 1))
    pods.made(rayjob, "submitter", phase="Failed", containerStatuses=[submitter])
