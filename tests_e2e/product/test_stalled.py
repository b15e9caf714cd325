"""A trainer that hangs is said to, and when it goes on, so does its job."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product.jobs import ASKS_EVERY_S, Job, long_job
from tests_e2e.product.measured import Measured
from tests_e2e.product.said import SAID_WITHIN_S
from tests_e2e.product.world import Namespace, World

STALL_S = 15


@pytest.fixture
def impatient(world: World) -> Iterator[None]:
    """An operator that calls a trainer stalled after so many seconds."""
    world.upgrade({"extraEnv": [{"name": "SNOWMELT_STALL_SECONDS", "value": str(STALL_S)}]})
    yield
    world.upgrade({"extraEnv": []})


@pytest.mark.usefixtures("impatient")
def test_a_trainer_that_hangs_is_called_stalled_and_goes_on_when_it_can(
    namespace: Namespace, measured: Measured
) -> None:
    job = namespace.apply(long_job("hung", epochs=24))
    job.await_epoch(2)
    signal_driver(job, "STOP")
    due = time.time() + STALL_S
    eventually(
        lambda: job.condition("Progressing").get("reason") == "Stalled",
        f"it is not said: {job.status}",
        STALL_S + SAID_WITHIN_S,
        ASKS_EVERY_S,
    )
    measured("Stalled in status, after the time that silence may last", time.time() - due)
    eventually(lambda: bool(job.events("Stalled")), "no Event Stalled")
    signal_driver(job, "CONT")
    status = job.complete()
    assert job.condition("Progressing").get("reason") != "Stalled"
    assert status["attempts"]["current"] == 1


SIGNAL = """
import os, pathlib, signal, sys
for directory in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (directory / "cmdline").read_bytes().split(bytes(1))
    except OSError:
        continue
    if b"snowmelt_trainer" in b" ".join(words) and int(directory.name) != os.getpid():
        print(words)
        os.kill(int(directory.name), signal.Signals["SIG" + sys.argv[1]])
"""


def signal_driver(job: Job, name: str) -> None:
    """Stop the driver, or let it go on; it runs beside the head."""
    (head,) = job.pods("head")
    command = ("exec", head["metadata"]["name"], "-n", job.namespace.name, "--", "python3", "-c", SIGNAL, name)
    assert job.namespace.kubectl(*command), "no process of the trainer is there"
