"""The checkpoints' disk is full: the job says so, keeps what it has, and goes on once there is room."""

from __future__ import annotations

import pytest

from hack.kube.controlplane import eventually
from tests_e2e.product.faults import SmallDisk
from tests_e2e.product.jobs import ASKS_EVERY_S, long_job
from tests_e2e.product.watching import CheckpointWatch, trained_once
from tests_e2e.product.world import Namespace

SAID_WITHIN_S = 90.0


@pytest.mark.breaks
@pytest.mark.core
def test_a_full_disk_is_named_and_once_there_is_room_the_job_goes_on(namespace: Namespace) -> None:
    with SmallDisk(namespace.world, namespace.volume("models"), mebibytes=64) as disk:
        job = namespace.apply(long_job("cramped", epochs=14))
        with CheckpointWatch(job.output) as watch:
            job.await_epoch(2)
            disk.fill()
            eventually(lambda: bool(job.incident("StorageFull")), "it is not said", SAID_WITHIN_S, ASKS_EVERY_S)
            assert "no space left" in job.incident("StorageFull")["message"]
            assert job.epochs() >= 2, "what was there before is not there any more"
            disk.make_room()
            status = job.complete()
        assert trained_once(watch, job)
        assert job.output.holds("model.safetensors")
        assert status["attempts"]["current"] == 2
        namespace.kubectl("delete", "finetunejob", job.name, "-n", namespace.name)
        eventually(lambda: job.pods() == [], "pods of the job stay", 60.0, ASKS_EVERY_S)
