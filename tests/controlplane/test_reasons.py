"""Every way in which pods fail to run has its reason in status and in an Event, in the cluster's words, within 30 s.

The API server, its RBAC, pods and Events are real; the status of the pods is written as kubelet and scheduler do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from hack.kube import ControlPlane
from hack.localoperator import LocalOperator
from snowmelt_operator.api.reasons import Reason
from tests.controlplane.api import Api, Object, condition, has, is_at_attempt, is_in_phase
from tests.controlplane.audit import requests
from tests.controlplane.jobs import manifest, post, snapshot
from tests.controlplane.kuberay_standin import KubeRayStandIn
from tests.controlplane.operators import Served, kuberay_operator
from tests.controlplane.pods_standin import KubeletStandIn, PodsStandIn
from tests.unit.pods.documents import NOT_FOUND, SCHEDULED, container, disrupted, ended, running, unscheduled, waiting

WITHIN_S = 30.0
GRACE_S = 8
NO_CLAIM = '0/2 nodes are available: persistentvolumeclaim "shoes" not found. not found'
NO_ROOM = "0/2 nodes are available: 2 Insufficient cpu."
LASTING: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "pull": (waiting("ImagePullBackOff", NOT_FOUND), Reason.IMAGE_PULL_ERROR, "not found"),
    "config": (
        waiting("CreateContainerConfigError", 'secret "keys" not found'),
        Reason.CONTAINER_START_ERROR,
        '"keys"',
    ),
    "claim": (unscheduled(NO_CLAIM), Reason.VOLUME_ERROR, '"shoes" not found'),
    "room": (unscheduled(NO_ROOM), Reason.UNSCHEDULABLE, NO_ROOM),
}
KILLING: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "memory": (running(restarts=1, last=ended("OOMKilled", 137)), Reason.CONTAINER_OOM_KILLED, "exit code 137"),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        *(Reason.POD_EVICTED, "low on resource: memory"),
    ),
    "lost": (
        disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        *(Reason.NODE_LOST, "NoExecute taint"),
    ),
    "preempted": (
        disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        *(Reason.PREEMPTED, "higher priority pod"),
    ),
}


@pytest.fixture(scope="module")
def served(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The operator with short graces; KubeRay is played."""
    plane.kubectl("create", "namespace", "test-reasons")
    api = Api(plane, "test-reasons")
    api.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    graces = {f"{kind}_grace_seconds": str(GRACE_S) for kind in ("image_pull", "volume", "start")}
    with kuberay_operator(
        plane, api.namespace, tmp_path_factory.mktemp("reasons") / "operator.log", **graces
    ) as operator:
        yield Served(api, KubeRayStandIn(api), operator)
    api.close()


@pytest.fixture(scope="module")
def pods(served: Served) -> PodsStandIn:
    return PodsStandIn(served.api)


@pytest.fixture(scope="module")
def kubelet(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeletStandIn]:
    with KubeletStandIn(plane, tmp_path_factory.mktemp("kubelet")) as kubelet:
        yield kubelet


def incident(job: Object, reason: str) -> Object:
    found: list[Object] = [each for each in job["status"].get("incidents", []) if each["reason"] == reason]
    assert len(found) == 1, f"{reason} is in {job['status'].get('incidents')} {len(found)} times"
    return found[0]


@pytest.mark.parametrize("name", LASTING)
def test_what_keeps_pods_from_running_is_said_in_the_clusters_words(
    name: str, served: Served, pods: PodsStandIn
) -> None:
    status, reason, words = LASTING[name]
    api = served.api
    api.create("finetunejobs", manifest(name))
    served.kuberay.initializes(f"{name}-a1")
    pod = pods.made(f"{name}-a1", **status)
    job = api.until("finetunejobs", name, has("ClusterReady", status="False", reason=reason), within_s=WITHIN_S)
    assert words in condition(job, "ClusterReady")["message"]
    assert words in api.told(name, reason)
    assert incident(job, reason)["pod"] == pod


@pytest.mark.parametrize("name", ["pull", "config", "claim"])
def test_what_only_somebody_can_change_then_fails_the_job_long_before_its_deadline(name: str, served: Served) -> None:
    _, reason, words = LASTING[name]
    job = served.api.until("finetunejobs", name, has("Failed", reason=reason), within_s=GRACE_S + WITHIN_S)
    assert words in condition(job, "Failed")["message"]
    assert "new FineTuneJob" in condition(job, "Failed")["message"]
    served.kuberay.lets_go(f"{name}-a1")


def test_what_may_pass_is_waited_for_and_gone_when_the_pod_runs(served: Served, pods: PodsStandIn) -> None:
    assert not has("Failed")(served.api.get("finetunejobs", "room") or {})
    pods.says("room-a1-head-x1", **running())
    served.kuberay.runs("room-a1")
    served.api.until("finetunejobs", "room", has("ClusterReady"))


@pytest.mark.parametrize("name", KILLING)
def test_what_befell_a_pod_is_told_and_is_why_the_attempt_failed_which_is_retried(
    name: str, served: Served, pods: PodsStandIn
) -> None:
    status, reason, words = KILLING[name]
    api, kuberay = served.api, served.kuberay
    api.create("finetunejobs", manifest(name))
    kuberay.runs(f"{name}-a1")
    pod = pods.made(f"{name}-a1", "workers", **running())
    api.until("finetunejobs", name, is_in_phase("Running"))
    pods.says(pod, **status)
    job = api.until("finetunejobs", name, lambda job: job["status"].get("incidents"), within_s=WITHIN_S)
    assert words in incident(job, reason)["message"]
    assert words in api.told(name, reason)
    assert has("Running")(job)

    pods.vanishes(pod)
    kuberay.ends(f"{name}-a1", "FAILED", "Failed", reason="AppFailed", message="job driver died")
    job = api.until("finetunejobs", name, is_at_attempt(2))
    assert f"{reason}: " in api.told(name, "Retrying")


def test_a_node_that_does_not_answer_is_told_before_its_pods_are_evicted(served: Served, pods: PodsStandIn) -> None:
    served.api.create("finetunejobs", manifest("silent-node"))
    served.kuberay.runs("silent-node-a1")
    pod = pods.made("silent-node-a1", "workers", **running())
    unready = [
        SCHEDULED,
        {"type": "Ready", "status": "False"},
        {"type": "ContainersReady", "status": "True"},
    ]
    pods.says(pod, conditions=unready)
    served.api.until("finetunejobs", "silent-node", has("ClusterReady", status="False", reason="NodeLost"))


@pytest.mark.parametrize(("used", "permanent"), [("requests.cpu=4", False), ("requests.cpu=0", True)])
def test_a_quota_is_told_in_the_api_servers_words_and_fails_the_job_where_it_never_suffices(
    used: str, permanent: bool, served: Served
) -> None:
    name = "quota-too-small" if permanent else "quota-used-up"
    asked = "requests.cpu=9" if permanent else "requests.cpu=4"
    words = f'pods "x" is forbidden: exceeded quota: team, requested: {asked}, used: {used}, limited: requests.cpu=4'
    served.api.create("finetunejobs", manifest(name))
    served.kuberay.initializes(f"{name}-a1")
    served.kuberay.cannot_make_pods(f"{name}-a1", words)
    reason = {"reason": Reason.QUOTA_EXCEEDED.value}
    awaited = has("Failed", **reason) if permanent else has("ClusterReady", status="False", **reason)
    job = served.api.until("finetunejobs", name, awaited, within_s=GRACE_S + WITHIN_S)
    assert words in condition(job, "Failed" if permanent else "ClusterReady")["message"]
    assert served.api.told(name, "QuotaExceeded")


def test_a_quota_that_refuses_the_submitter_alone_is_found_in_its_jobs_events(
    served: Served, pods: PodsStandIn
) -> None:
    words = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3'
    served.api.create("finetunejobs", manifest("no-submitter"))
    served.kuberay.awaits_its_submitter("no-submitter-a1")
    pods.refuses_the_submitter_of("no-submitter-a1", f"Error creating: {words}")
    awaited = has("ClusterReady", status="False", reason="QuotaExceeded")
    job = served.api.until("finetunejobs", "no-submitter", awaited, within_s=WITHIN_S)
    assert words in condition(job, "ClusterReady")["message"]
    served.kuberay.says("no-submitter-a1", jobStatus="RUNNING")
    served.api.until("finetunejobs", "no-submitter", has("ClusterReady"))


def test_a_volume_that_cannot_be_mounted_is_found_in_the_pods_events(served: Served, pods: PodsStandIn) -> None:
    api = served.api
    api.create("finetunejobs", manifest("mount"))
    served.kuberay.initializes("mount-a1")
    pod = pods.made("mount-a1")
    words = 'MountVolume.SetUp failed for volume "claim-0": mount failed: exit status 32'
    pods.warns(pod, "FailedMount", words)
    pods.says(pod, **waiting("ContainerCreating"))
    job = api.until(
        "finetunejobs", "mount", has("ClusterReady", status="False", reason="VolumeError"), within_s=WITHIN_S + 5
    )
    assert words in condition(job, "ClusterReady")["message"]


def test_the_end_of_a_failed_pods_log_is_kept_after_the_pod_is_gone(
    served: Served, pods: PodsStandIn, kubelet: KubeletStandIn
) -> None:
    api = served.api
    api.create("finetunejobs", manifest("logged", backoffLimit=0))
    served.kuberay.runs("logged-a1")
    submitter = pods.made("logged-a1", "submitter", phase="Running")
    kubelet.logs[submitter] = "\x1b[36mstep 1\x1b[0m\nModuleNotFoundError: No module named 'snowmelt_trainer'\n"
    pods.says(
        submitter, phase="Failed", containerStatuses=[container("ray-job-submitter", terminated=ended("Error", 1))]
    )
    served.kuberay.ends("logged-a1", "FAILED", "Failed", reason="AppFailed", message="exit code 1")
    api.until("finetunejobs", "logged", is_in_phase("Failed"))
    pods.vanishes(submitter)
    job = api.get("finetunejobs", "logged")
    assert job is not None
    assert incident(job, "BackoffLimitExceeded")["log"] == (
        "step 1\nModuleNotFoundError: No module named 'snowmelt_trainer'"
    )
    assert all("tailLines=20" in asked for asked in kubelet.asked)


def test_a_stalled_attempt_is_given_up_and_goes_on_in_another(
    make_operator: Callable[..., LocalOperator], api: Api, kuberay: KubeRayStandIn
) -> None:
    make_operator(stall_seconds="2", stall_grace_seconds="2").start()
    api.create("finetunejobs", manifest("hangs"))
    kuberay.runs("hangs-a1")
    api.until("finetunejobs", "hangs", is_in_phase("Running"))
    assert post(kuberay, "hangs-a1", snapshot(1, 1)).is_success
    api.until("finetunejobs", "hangs", has("Progressing", status="False", reason="Stalled"))
    kuberay.lets_go("hangs-a1")
    kuberay.runs("hangs-a2")
    job = api.until("finetunejobs", "hangs", is_at_attempt(2))
    assert job["status"]["attempts"]["failed"] == 1
    assert api.told("hangs", "Stalled")
    assert "Stalled: " in api.told("hangs", "Retrying")


def test_pods_are_asked_for_by_label_and_no_other_pod_is_ever_sent(served: Served, plane: ControlPlane) -> None:
    asked = [
        request["requestURI"]
        for verb in ("list", "watch")
        for request in requests(plane, served.api.namespace, user="operator", verb=verb, resource="pods")
    ]
    assert len(asked) >= 2
    assert [uri for uri in asked if "labelSelector=snowmelt.dev/job" not in unquote(uri)] == []


def test_without_the_right_to_see_pods_jobs_run_all_the_same_and_it_is_said_once(
    plane: ControlPlane, make_operator: Callable[..., LocalOperator], api: Api, kuberay: KubeRayStandIn, tmp_path: Path
) -> None:
    del tmp_path
    role = plane.get("clusterrole", "snowmelt-operator")
    without = [rule for rule in role["rules"] if not {"pods", "pods/log"} & set(rule["resources"])]
    patch_rules(plane, without)
    try:
        operator = make_operator(resync_seconds="1")
        operator.start()
        api.create("finetunejobs", manifest("blind"))
        kuberay.runs("blind-a1")
        api.until("finetunejobs", "blind", is_in_phase("Running"))
        kuberay.ends("blind-a1", "FAILED", "Failed", reason="AppFailed", message="head lost")
        api.until("finetunejobs", "blind", is_at_attempt(2))
        end = time.monotonic() + 4
        while time.monotonic() < end:  # the fact is that nothing more is said
            assert operator.service.log.read_text().count("may not list and watch pods") == 1
            time.sleep(0.5)
    finally:
        patch_rules(plane, role["rules"])


def patch_rules(plane: ControlPlane, rules: list[Object]) -> None:
    patch = json.dumps({"rules": rules})
    plane.kubectl("patch", "clusterrole", "snowmelt-operator", "--type=merge", "-p", patch)
