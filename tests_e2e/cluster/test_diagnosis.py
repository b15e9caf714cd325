"""What real kubelets, schedulers and the API server write of pods that cannot run is what the operator reads in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hack.kube.cluster import Cluster
from hack.kube.controlplane import ControlPlaneError, eventually
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.diagnosis import Diagnosis, diagnose
from snowmelt_operator.pods.pod import Pod
from snowmelt_operator.pods.refusal import refusal
from tests_e2e.cluster.pods import apply, shell

WITHIN_S = 60.0
LABELS = {"snowmelt.dev/job": "shoes", "snowmelt.dev/uid": "u", "snowmelt.dev/attempt": "1"}
HOG = "x=$(/bin/busybox dd if=/dev/zero bs=1M count=200 | /bin/busybox tr '\\0' x); echo $x"


def troubled(name: str, script: str = "true", **container: Any) -> dict[str, Any]:
    """A pod of ours on node-1, as KubeRay makes them: restarted for ever."""
    pod = shell(name, "node-1", script)
    pod["metadata"]["labels"] = LABELS
    pod["spec"] |= {"restartPolicy": "Always"}
    pod["spec"]["containers"][0] |= container
    return pod


def with_claim(name: str) -> dict[str, Any]:
    pod = shell(name, "node-1", "true", claim="nowhere")
    pod["metadata"]["labels"] = LABELS
    return pod


NO_SECRET = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}
LASTING: dict[str, tuple[dict[str, Any], Reason, str, bool]] = {
    "no-image": (
        troubled("no-image", image="localhost/nobody/nothing:1", imagePullPolicy="IfNotPresent"),
        *(Reason.IMAGE_PULL_ERROR, "localhost/nobody/nothing:1", True),
    ),
    "bad-image": (troubled("bad-image", image="Nothing:1"), Reason.IMAGE_PULL_ERROR, "InvalidImageName", True),
    "no-secret": (troubled("no-secret", env=[NO_SECRET]), Reason.CONTAINER_START_ERROR, '"keys" not found', True),
    "no-command": (
        troubled("no-command", command=["/bin/nothing"]),
        *(Reason.CONTAINER_START_ERROR, "/bin/nothing", True),
    ),
    "crashes": (troubled("crashes", "exit 3"), Reason.CONTAINER_CRASH_LOOP_BACK_OFF, "exit code 3", False),
    "no-claim": (with_claim("no-claim"), Reason.VOLUME_ERROR, '"nowhere" not found', True),
    "no-room": (
        troubled("no-room", resources={"requests": {"cpu": "4000"}}),
        *(Reason.UNSCHEDULABLE, "Insufficient cpu", False),
    ),
}


def diagnosis_of(cluster: Cluster, name: str) -> Diagnosis:
    pod = Pod.parse(cluster.kubectl().get("pod", name))
    assert pod is not None
    return diagnose(pod)


def until(cluster: Cluster, name: str, holds: Callable[[Diagnosis], bool]) -> Diagnosis:
    """The first diagnosis of which `holds` says yes: a container that crashes is well for a moment in between."""
    held: list[Diagnosis] = []

    def looked() -> bool:
        seen = diagnosis_of(cluster, name)
        if holds(seen):
            held.append(seen)
        return bool(held)

    try:
        eventually(looked, "", WITHIN_S)
    except ControlPlaneError:
        status = cluster.kubectl().get("pod", name)["status"]
        pytest.fail(f"{diagnosis_of(cluster, name)} of {json.dumps(status, indent=1)}")
    return held[0]


@pytest.mark.parametrize("name", LASTING)
def test_a_pod_that_cannot_run_is_diagnosed_from_what_the_cluster_writes(cluster: Cluster, name: str) -> None:
    pod, reason, words, permanent = LASTING[name]
    apply(cluster, pod)

    def is_understood(seen: Diagnosis) -> bool:
        return seen.lasting is not None and seen.lasting.reason is reason and words in seen.lasting.message

    found = until(cluster, name, is_understood).lasting
    assert found is not None
    assert found.is_permanent is permanent
    cluster.kubectl()("delete", "pod", name, "--wait=false")


def test_a_container_over_its_memory_limit_is_told_apart_from_one_that_fails(cluster: Cluster) -> None:
    apply(cluster, troubled("greedy", HOG, resources={"limits": {"memory": "32Mi"}}))
    seen = until(cluster, "greedy", lambda seen: seen.happened is not None)
    assert seen.happened is not None
    assert seen.happened.reason is Reason.CONTAINER_OOM_KILLED
    assert seen.ended is not None
    cluster.kubectl()("delete", "pod", "greedy", "--wait=false")


def test_a_pod_that_an_eviction_took_is_told_so(cluster: Cluster) -> None:
    apply(cluster, troubled("evicted", "sleep 1000") | {})
    until(cluster, "evicted", lambda _: cluster.kubectl().get("pod", "evicted")["status"]["phase"] == "Running")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "evicted", "namespace": "default"},
        "deleteOptions": {"gracePeriodSeconds": 20},
    }
    path = "/api/v1/namespaces/default/pods/evicted/eviction"
    cluster.kubectl()("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    found = until(cluster, "evicted", lambda seen: seen.happened is not None).happened
    assert found is not None
    assert found.reason is Reason.POD_EVICTED


def test_a_quota_refuses_in_words_that_are_understood(cluster: Cluster) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": "tight"},
        "spec": {"hard": {"requests.cpu": "1"}},
    }
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tight"}}, quota)
    kubectl = cluster.kubectl()
    eventually(
        lambda: "hard" in kubectl.get("resourcequota", "small", "-n", "tight").get("status", {}), "no quota", WITHIN_S
    )
    pod = troubled("large", resources={"requests": {"cpu": "2"}})
    pod["metadata"]["namespace"] = "tight"
    with pytest.raises(ControlPlaneError) as caught:
        apply(cluster, pod)
    found = refusal(str(caught.value))
    assert found is not None
    assert (found.reason, found.is_permanent) == (Reason.QUOTA_EXCEEDED, True)
    kubectl("delete", "namespace", "tight", "--wait=false")
