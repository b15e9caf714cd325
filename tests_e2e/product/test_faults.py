"""What goes wrong around a job costs it nothing; what goes wrong in it costs what came after the checkpoint."""

from __future__ import annotations

import os
import random
import time

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product import faults
from tests_e2e.product.jobs import Job, long_job
from tests_e2e.product.measured import Measured
from tests_e2e.product.said import await_reason
from tests_e2e.product.watching import CheckpointWatch, trained_once
from tests_e2e.product.world import Namespace, World

SEED = 20261125
REPLACED_WITHIN_S = 240.0
SHORT_S = 10.0
"""How long an outage lasts where there are many of them."""


def pod_uids(job: Job) -> set[str]:
    return {pod["metadata"]["uid"] for kind in ("head", "worker") for pod in job.pods(kind)}


@pytest.mark.breaks
@pytest.mark.core
@pytest.mark.short
def test_one_job_outlives_a_fault_of_each_kind(namespace: Namespace) -> None:
    """What the tests below do at length, one after the other in the life of one job."""
    world = namespace.world
    # A machine of two cores takes 1 to 3 s an epoch, and the faults, as long as epochs go on, two minutes.
    job = namespace.apply(long_job("tried", epochs=64 * max(2, os.cpu_count() or 1)))
    with CheckpointWatch(job.output) as watch:
        faults.kill_operator(world)
        job.await_epoch(1)
        pods = pod_uids(job)
        assert len(pods) == 3
        without_control_plane(world, SHORT_S)
        faults.kill_operator(world)
        world.await_operator()
        assert pod_uids(job) == pods
        await_another_two_epochs_after_losing(job, "worker")
        await_another_two_epochs_after_losing(job, "head")
        node = node_without_head(job)
        faults.unplug(world, node)
        faults.plug_in(world, node)
        job.await_epoch(job.epochs() + 2)
        assert job.phase == "Running", "the job was over before the last fault: give it more epochs"
        job.complete()
    assert_trained_once_by_the_first_attempt(job, watch)


@pytest.mark.breaks
@pytest.mark.parametrize("outage", [pytest.param(15.0, marks=pytest.mark.short), 60.0])
def test_a_job_trains_on_without_the_control_plane(namespace: Namespace, outage: float) -> None:
    world = namespace.world
    job = namespace.apply(long_job("steady", epochs=45 + int(outage * 3)))
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(1)
        pods = pod_uids(job)
        assert len(pods) == 3
        without_control_plane(world, outage)
        world.await_operator()
        assert pod_uids(job) == pods
        assert job.phase == "Running", "the job was over before the last fault: give it more epochs"
        job.complete()
    assert_trained_once_by_the_first_attempt(job, watch)


@pytest.mark.parametrize("kills", [pytest.param(3, marks=pytest.mark.short), 10])
def test_a_job_outlives_its_operator_at_any_moment(namespace: Namespace, kills: int) -> None:
    """Moments drawn by a fixed seed, the first of them before anything of the job runs."""
    world, moments = namespace.world, random.Random(SEED)
    job = namespace.apply(long_job("survivor", epochs=10 + 8 * kills))
    with CheckpointWatch(job.output) as watch:
        for _ in range(kills):
            time.sleep(moments.uniform(0.0, 8.0))
            faults.kill_operator(world)
            world.await_operator()
        job.complete()
    assert_trained_once_by_the_first_attempt(job, watch)


def test_a_lost_worker_and_a_lost_head_are_replaced_within_the_attempt(namespace: Namespace) -> None:
    job = namespace.apply(long_job("pods", epochs=14))
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(2)
        await_another_two_epochs_after_losing(job, "worker")
        assert job.status["attempts"]["current"] == 1
        await_another_two_epochs_after_losing(job, "head")
        status = job.complete()
    assert trained_once(watch, job)
    # KubeRay makes a new head in the same Ray cluster, and its submitter submits the same job to it again.
    assert status["attempts"]["current"] == 1
    assert job.rayjobs() == ["pods-a1"]
    assert job.output.holds("model.safetensors")


@pytest.mark.breaks
def test_a_job_outlives_a_node(namespace: Namespace, measured: Measured) -> None:
    job = namespace.apply(long_job("nodes", epochs=14))
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(2)
        node = node_without_head(job)
        faults.unplug(namespace.world, node)
        measured("NodeLost in status, after the node was missed", await_reason(job, "NodeLost", time.time()))
        faults.plug_in(namespace.world, node)
        job.await_epoch(job.epochs() + 2)
        job.complete()
    assert trained_once(watch, job)
    assert job.output.holds("model.safetensors")


def without_control_plane(world: World, outage: float) -> None:
    """Each part of it is away once, for so many seconds; etcd for as long as a restart takes."""
    faults.without_api_server(world, outage)
    faults.restart_etcd(world)
    faults.without_kuberay(world, outage)
    faults.without_progress_endpoint(world, outage)


def assert_trained_once_by_the_first_attempt(job: Job, watch: CheckpointWatch) -> None:
    """The model of a finished job is there, no epoch was trained twice, and there never was a second RayJob."""
    assert trained_once(watch, job)
    assert job.output.holds("model.safetensors")
    assert job.status["attempts"]["current"] == 1
    assert job.rayjobs() == [f"{job.name}-a1"]


def await_another_two_epochs_after_losing(job: Job, kind: str) -> None:
    lose(job, kind)
    job.await_epoch(job.epochs() + 2, within_s=REPLACED_WITHIN_S)


def lose(job: Job, kind: str) -> None:
    """One pod of a kind goes at once, as with its node."""
    pod = job.pods(kind)[0]["metadata"]
    command = ("delete", "pod", pod["name"], "-n", job.namespace.name, "--grace-period=0", "--force")
    job.namespace.kubectl(*command)
    gone = f"pod {pod['name']} is not gone"
    eventually(lambda: pod["uid"] not in {one["metadata"]["uid"] for one in job.pods(kind)}, gone)


def node_without_head(job: Job) -> str:
    """The node of the worker that does not share the head's."""
    (head,) = job.pods("head")
    nodes = {str(pod["spec"]["nodeName"]) for pod in job.pods("worker")} - {head["spec"]["nodeName"]}
    return nodes.pop()
