"""An elastic job takes in the worker that a second node has room for, loses it with the node, and gets it back."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product import faults
from tests_e2e.product.jobs import ASKS_EVERY_S, Job, example
from tests_e2e.product.watching import CheckpointWatch, trained_once
from tests_e2e.product.world import Namespace

CHANGES_WITHIN_S = 300.0
EPOCHS = 300


@pytest.mark.breaks
def test_an_elastic_job_grows_and_shrinks_with_the_nodes(namespace: Namespace) -> None:
    stage = {"maxEpochs": EPOCHS, "patience": EPOCHS}
    manifest = example("elastic", unfreezing={"strategy": "Full", "stage": stage})
    manifest["spec"]["workers"]["elastic"] = {"min": 1, "max": 2}
    # On nodes of two CPUs, one of which has the head, a slot decides who finds room.
    manifest["spec"]["workers"]["resources"]["requests"] = {"cpu": "100m"}
    job = namespace.apply(manifest)
    with CheckpointWatch(job.output) as watch:
        await_workers(job, 2)
        (head,) = job.pods("head")
        node = next(
            pod["spec"]["nodeName"] for pod in job.pods("worker") if pod["spec"]["nodeName"] != head["spec"]["nodeName"]
        )
        faults.unplug(namespace.world, node)
        await_workers(job, 1)
        faults.plug_in(namespace.world, node)
        await_workers(job, 2)
        status = job.complete()
    assert trained_once(watch, job)
    assert status["attempts"]["current"] == 1
    assert job.rayjobs() == ["elastic-a1"]
    assert has_no_jump(training_losses(job))


def await_workers(job: Job, number: int) -> None:
    """Until so many workers train."""
    eventually(
        lambda: job.status.get("progress", {}).get("workers") == number,
        f"{job.name} does not train with {number} workers",
        CHANGES_WITHIN_S,
        ASKS_EVERY_S,
    )


def training_losses(job: Job) -> list[float]:
    lines = job.output.read("history.jsonl").splitlines()
    return [json.loads(line)["trainLoss"] for line in lines]


def has_no_jump(losses: list[float]) -> bool:
    """Whether no epoch undoes what the run had learnt: none after the first tenth is worse than half of its start."""
    start = losses[0]
    return all(after < max(before, start / 2) * 1.5 for before, after in pairwise(losses[len(losses) // 10 :]))
