"""A release on a real cluster: `helm test`, an upgrade under a running job, and what uninstalling leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.kube.controlplane import eventually
from hack.kube.helm import CHART
from tests_e2e.product.jobs import long_job
from tests_e2e.product.world import RELEASE, SYSTEM, Namespace, World

PART = "app.kubernetes.io/part-of=snowmelt"
GONE_WITHIN_S = 90.0


@pytest.mark.core
def test_helm_test_trains_a_tiny_model_and_leaves_nothing(world: World) -> None:
    said = world.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", "15m")
    assert "Phase:          Succeeded" in said
    left = world.kubectl("get", "finetunejobs,rayjobs,pvc", "-n", SYSTEM, "-o", "name")
    assert left.split() == []


def test_an_upgrade_under_a_running_job_neither_stops_nor_repeats_it(world: World, namespace: Namespace) -> None:
    job = namespace.apply(long_job("upgraded", epochs=12))
    job.await_epoch(1)
    before = {pod["metadata"]["name"] for pod in world.operator_pods()}
    world.upgrade({"logLevel": "DEBUG"})
    eventually(lambda: not before & {pod["metadata"]["name"] for pod in world.operator_pods()}, "old pods stay", 90.0)
    status = job.complete()
    assert job.rayjobs() == ["upgraded-a1"]
    assert status["attempts"]["current"] == 1
    assert job.epochs() == 12


def test_uninstalling_leaves_the_crd_and_the_users_jobs_and_says_so(
    world: World, namespace: Namespace, tmp_path: Path
) -> None:
    job = namespace.apply(long_job("kept", epochs=500))
    job.await_epoch(1)
    values = tmp_path / "values.json"
    values.write_text(world.helm("get", "values", RELEASE, "--namespace", SYSTEM, "--output", "json"))
    try:
        said = world.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
        assert "kept due to the resource policy" in said
        assert "finetunejobs.snowmelt.dev" in said
        eventually(lambda: everything_of_the_chart(world) == {CRD}, "more than the CRD stays", GONE_WITHIN_S)
        assert job.rayjobs() == ["kept-a1"]
    finally:
        world.helm("install", RELEASE, CHART, "--namespace", SYSTEM, "--values", values, "--wait", "--timeout", "5m")
        world.await_operator()
    namespace.kubectl("patch", "finetunejob", "kept", "-n", namespace.name, "--type=merge", "-p", SUSPEND)
    eventually(lambda: job.phase == "Suspended", "the new installation does not find the job", 120.0)


CRD = "customresourcedefinition.apiextensions.k8s.io/finetunejobs.snowmelt.dev"
SUSPEND = json.dumps({"spec": {"suspend": True}})


def everything_of_the_chart(world: World) -> set[str]:
    """Whatever in the cluster has the chart's label, by kind and name."""
    kinds = world.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in kinds if not kind.startswith(("finetunejobs.", "componentstatuses"))]
    return set(world.kubectl("get", ",".join(kinds), "-A", "-l", PART, "-o", "name", "--ignore-not-found").split())
