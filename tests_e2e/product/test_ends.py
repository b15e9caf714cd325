"""How jobs, namespaces and releases end: nothing stays that should not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.kube.controlplane import eventually
from hack.kube.kubectl import ControlPlaneError
from tests_e2e.product.jobs import long_job
from tests_e2e.product.world import RELEASE, SYSTEM, Namespace, World

GONE_WITHIN_S = 30.0
NAMESPACE_GONE_WITHIN_S = 120.0


@pytest.mark.core
def test_a_job_deleted_in_mid_run_is_gone_in_30_seconds_with_all_its_pods(namespace: Namespace) -> None:
    job = namespace.apply(long_job("gone", epochs=500))
    job.await_epoch(2)
    output = job.output
    namespace.kubectl("delete", "finetunejob", "gone", "-n", namespace.name)
    eventually(lambda: not job.pods() and not job.rayjobs(), "pods of a deleted job stay", GONE_WITHIN_S)
    left = [path for path in output.found("**/.*") if Path(path).name != ".snowmelt"]
    assert left == [], "half-written files stay"
    assert not output.holds("model.safetensors")


def test_a_namespace_goes_even_when_the_operator_is_gone(world: World, namespace: Namespace) -> None:
    job = namespace.apply(long_job("orphan", epochs=500))
    job.await_epoch(1)
    scale(world, 0)
    try:
        namespace.delete()
        eventually(lambda: is_gone(world, namespace.name), "the namespace stays", NAMESPACE_GONE_WITHIN_S)
    finally:
        scale(world, 2)
        world.await_operator()


def scale(world: World, replicas: int) -> None:
    world.kubectl("scale", "deployment", RELEASE, "-n", SYSTEM, f"--replicas={replicas}")
    eventually(lambda: len(world.operator_pods()) == replicas, f"the operator has not {replicas} pods", 90.0)


def is_gone(world: World, namespace: str) -> bool:
    try:
        world.kubectl("get", "namespace", namespace)
    except ControlPlaneError as error:
        return "NotFound" in str(error)
    return False
