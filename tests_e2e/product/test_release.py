"""A release on a real cluster: `helm test`, an upgrade under a running job, and what uninstalling leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.images import Images, load
from hack.images.earlier import PREVIOUS
from hack.kube.controlplane import eventually
from hack.kube.helm import CHART
from tests_e2e.product.jobs import Job, long_job
from tests_e2e.product.world import CRD, RELEASE, REPOSITORY, SYSTEM, Namespace, World, image_values

PART = "app.kubernetes.io/part-of=snowmelt"
GONE_WITHIN_S = 90.0


@pytest.mark.core
def test_helm_test_trains_a_tiny_model_and_leaves_nothing(world: World) -> None:
    said = world.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", "15m")
    assert "Phase:          Succeeded" in said
    left = world.kubectl("get", "finetunejobs,rayjobs,pvc", "-n", SYSTEM, "-o", "name")
    assert left.split() == []


@pytest.fixture
def earlier(world: World, tmp_path: Path) -> Iterator[Images]:
    """The cluster with the previous release on it, as one who installed that has it; afterwards with this one again."""
    checkout = PREVIOUS.check_out(tmp_path / PREVIOUS.version)
    images = PREVIOUS.images(checkout)
    load(world.cluster, images.layout, images.names)
    try:
        _begin_anew(world)
        world.install(checkout / CHART.relative_to(REPOSITORY), images.names)
        yield images
    finally:
        world.install()


def _begin_anew(world: World) -> None:
    """Nothing of the product is left, so that the next `helm install` is the first."""
    world.uninstall()
    world.kubectl("delete", "crd", CRD, "--timeout=120s")


@pytest.mark.breaks
def test_an_upgrade_from_the_previous_release_neither_stops_nor_repeats_a_running_job(
    world: World, namespace: Namespace, earlier: Images
) -> None:
    job = namespace.apply(long_job("upgraded", epochs=12))
    job.await_epoch(1)
    pods = {pod["metadata"]["uid"] for pod in job.pods()}
    schema = schema_of(world.crd())
    world.upgrade(image_values(world.operator_image, world.trainer_image))
    assert schema_of(world.crd()) == schema_of(yaml.safe_load(CRD_FILE.read_text())) != schema
    status = job.complete()
    assert job.rayjobs() == ["upgraded-a1"]
    assert status["attempts"]["current"] == 1
    assert job.epochs() == 12
    assert {pod["metadata"]["uid"] for pod in job.pods()} <= pods
    assert image_of(namespace.apply(long_job("new", epochs=1))) == world.trainer_image != earlier.trainer


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
        said = world.uninstall()
        assert "kept due to the resource policy" in said
        assert CRD in said
        eventually(lambda: everything_of_the_chart(world) == {THE_CRD}, "more than the CRD stays", GONE_WITHIN_S)
        assert job.rayjobs() == ["kept-a1"]
    finally:
        world.helm("install", RELEASE, CHART, "--namespace", SYSTEM, "--values", values, "--wait", "--timeout", "5m")
        world.await_operator()
    namespace.kubectl("patch", "finetunejob", "kept", "-n", namespace.name, "--type=merge", "-p", SUSPEND)
    eventually(lambda: job.phase == "Suspended", "the new installation does not find the job", 120.0)


THE_CRD = f"customresourcedefinition.apiextensions.k8s.io/{CRD}"
CRD_FILE = REPOSITORY / "crds/snowmelt.dev_finetunejobs.yaml"
SUSPEND = json.dumps({"spec": {"suspend": True}})


def schema_of(crd: dict[str, Any]) -> Any:
    """What a FineTuneJob of the only version may say."""
    (version,) = crd["spec"]["versions"]
    return version["schema"]


def image_of(job: Job) -> str:
    """The image that a job's first attempt runs, once its head is there."""
    eventually(lambda: bool(job.pods("head")), f"{job.name} has no head", 120.0)
    (head,) = job.pods("head")
    return str(head["spec"]["containers"][0]["image"])


def everything_of_the_chart(world: World) -> set[str]:
    """Whatever in the cluster has the chart's label, by kind and name."""
    kinds = world.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in kinds if not kind.startswith(("finetunejobs.", "componentstatuses"))]
    return set(world.kubectl("get", ",".join(kinds), "-A", "-l", PART, "-o", "name", "--ignore-not-found").split())
