"""A real Kueue decides when a job runs, and takes its place away again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product import kueue
from tests_e2e.product.jobs import ASKS_EVERY_S, Job, long_job
from tests_e2e.product.watching import CheckpointWatch, trained_once
from tests_e2e.product.world import Namespace, World

WITHIN_S = 60.0


@pytest.fixture
def queued(world: World, namespace: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """The namespace with a queue that lets nothing through yet."""
    kueue.install(world, tmp_path)
    try:
        kueue.open_queue(namespace)
        yield namespace
    finally:
        kueue.uninstall(world)


@pytest.mark.breaks
def test_a_job_waits_for_kueue_and_goes_on_from_its_checkpoint_after_a_preemption(queued: Namespace) -> None:
    world = queued.world
    manifest = long_job("patient", epochs=40)
    manifest["spec"]["runtime"] = {"queueName": kueue.QUEUE}
    job = queued.apply(manifest)
    await_queued(job)
    assert job.pods() == []
    kueue.hold(world, "None")
    with CheckpointWatch(job.output) as watch:
        job.await_epoch(2)
        assert job.condition("Queued")["reason"] == "Admitted"
        kueue.hold(world, "HoldAndDrain")
        await_queued(job)
        eventually(lambda: job.pods() == [], "pods of a preempted job stay", WITHIN_S, ASKS_EVERY_S)
        before = job.epochs()
        kueue.hold(world, "None")
        status = job.complete()
    assert before >= 2
    assert trained_once(watch, job)
    assert job.rayjobs() == ["patient-a1"]
    assert status["attempts"]["current"] == 1
    assert job.output.holds("model.safetensors")


def await_queued(job: Job) -> None:
    eventually(partial(is_queued, job), f"{job.name} is not queued", WITHIN_S, ASKS_EVERY_S)


def is_queued(job: Job) -> bool:
    condition = job.condition("Queued")
    return (condition.get("status"), condition.get("reason")) == ("True", "QueuedByKueue")
