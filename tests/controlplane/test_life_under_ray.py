"""FineTuneJobs under the Ray launcher: real API server, real operator, real Ray, a real network and real digits."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.kube import ControlPlane
from hack.localoperator import LocalOperator
from hack.localray import LocalRay
from tests.controlplane.api import Api, Object, has, is_in_phase
from tests.controlplane.conftest import REPOSITORY
from tests.controlplane.jobs import manifest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
NAMESPACE = "ray-life"
EPOCHS = 20
TRAINS_WITHIN_S = 240.0
"""Generous: a busy machine takes a minute to import torch in two processes."""


@dataclass(frozen=True)
class Training:
    """A Ray, and the folder in which the claims of these tests lie."""

    ray: LocalRay
    volumes: Path

    def submissions(self, job: str) -> dict[str, str]:
        """Status by id of all that was ever submitted for the FineTuneJob of that name."""
        ours = (entry for entry in self.ray.jobs() if f"--{job}-a" in (entry["submission_id"] or ""))
        return {entry["submission_id"]: entry["status"] for entry in ours}

    def epochs_announced(self, attempt: str) -> list[int]:
        """The epochs that the driver of this attempt spoke of in its log."""
        (log,) = self.ray.logs.glob(f"job-driver-*--{attempt}-*.log")
        return [int(epoch) for epoch in re.findall(r"stage 1/1 all epoch (\d+)", log.read_text())]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    volumes = tmp_path_factory.mktemp("volumes")
    everything = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-m", "hack.data.digits", str(everything)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    keep_some(everything, volumes / "digits")
    with LocalRay(tmp_path_factory.mktemp("ray") / "ray.log", cpus=2, env={"OMP_NUM_THREADS": "1"}) as ray:
        yield Training(ray, volumes)


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Iterator[Api]:
    plane.kubectl("create", "namespace", NAMESPACE)
    client = Api(plane, NAMESPACE)
    yield client
    client.close()


@pytest.fixture(scope="module")
def operator(
    plane: ControlPlane, api: Api, training: Training, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalOperator]:
    settings: dict[str, str | Path] = {
        "launcher": "ray",
        "namespaces": NAMESPACE,
        "ray_address": training.ray.dashboard_url,
        "ray_token_file": training.ray.token_file,
        "volumes_root": training.volumes,
        "poll_seconds": "1",
        "retry_base_seconds": "0.5",
    }
    with LocalOperator(plane, tmp_path_factory.mktemp("operator") / "operator.log", **settings) as started:
        yield started


@pytest.fixture(scope="module")
def survivor(operator: LocalOperator, api: Api) -> Object:
    """A job whose operator was killed in mid-training and started anew, once it has succeeded."""
    api.create("finetunejobs", digits("survivor"))
    before = api.until("finetunejobs", "survivor", trains, within_s=TRAINS_WITHIN_S)
    operator.kill()
    operator.start()
    assert before["status"]["progress"]["epoch"] < EPOCHS
    return api.until("finetunejobs", "survivor", is_in_phase("Succeeded"), within_s=TRAINS_WITHIN_S)


def digits(name: str, *, epochs: int = EPOCHS) -> Object:
    """A small network from scratch on 400 digits: about a second for an epoch, and it learns."""
    return manifest(
        name,
        backbone={"architecture": "shufflenet_v2_x0_5", "weights": "None"},
        data={
            "train": {"uri": "pvc://digits/train"},
            "test": {"uri": "pvc://digits/test"},
            "imageSize": 32,
            "augmentation": "None",
        },
        unfreezing={"strategy": "Full", "stage": {"maxEpochs": epochs, "patience": epochs}},
        optimization={"batchSize": 32, "layerDecay": 1.0, "learningRate": 0.005},
    )


def trains(job: Object) -> bool:
    """In mid-training: an epoch is behind it, and its checkpoint written."""
    return has("CheckpointAvailable")(job) and has("Running")(job)


def test_a_job_trains_on_real_images_and_delivers_what_its_status_says(survivor: Object, training: Training) -> None:
    status = survivor["status"]
    assert float(status["result"]["test"]["accuracy"]) > 0.6  # ten classes: guessing gives 0.1
    assert [row["epochs"] for row in status["stages"]] == [EPOCHS]
    assert status["progress"]["percent"] == 100
    model = training.volumes / "models" / "survivor" / "model.safetensors"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == status["result"]["sha256"]


def test_an_operator_killed_in_mid_training_finds_the_run_again_and_launches_nothing_twice(
    survivor: Object, training: Training
) -> None:
    assert survivor["status"]["attempts"]["current"] == 1
    assert survivor["status"]["attempts"]["failed"] == 0
    await_submissions(training, "survivor", ["SUCCEEDED"])
    assert epochs_in_history(training, "survivor") == list(range(1, EPOCHS + 1))


def test_a_resumed_job_goes_on_from_its_checkpoint(operator: LocalOperator, training: Training, api: Api) -> None:
    api.create("finetunejobs", digits("sleeper"))
    before = api.until("finetunejobs", "sleeper", trains, within_s=TRAINS_WITHIN_S)
    api.patch("finetunejobs", "sleeper", {"spec": {"suspend": True}})
    api.until("finetunejobs", "sleeper", is_in_phase("Suspended"), within_s=60)
    await_submissions(training, "sleeper", ["STOPPED"])

    api.patch("finetunejobs", "sleeper", {"spec": {"suspend": False}})
    job = api.until("finetunejobs", "sleeper", is_in_phase("Succeeded"), within_s=TRAINS_WITHIN_S)
    assert job["status"]["attempts"]["current"] == 2
    assert job["status"]["attempts"]["failed"] == 0
    assert before["status"]["checkpoint"]["epoch"] < EPOCHS
    assert min(training.epochs_announced("sleeper-a2")) > before["status"]["checkpoint"]["epoch"]
    assert epochs_in_history(training, "sleeper") == list(range(1, EPOCHS + 1))


def test_deleting_a_job_stops_its_training(operator: LocalOperator, training: Training, api: Api) -> None:
    api.create("finetunejobs", digits("dropped", epochs=1000))
    api.until("finetunejobs", "dropped", trains, within_s=TRAINS_WITHIN_S)
    api.delete("finetunejobs", "dropped")
    await_submissions(training, "dropped", ["STOPPED"])


def test_a_job_deleted_while_the_operator_was_away_is_stopped_when_it_is_back(
    operator: LocalOperator, training: Training, api: Api
) -> None:
    api.create("finetunejobs", digits("left-over", epochs=1000))
    api.until("finetunejobs", "left-over", has("Running"), within_s=TRAINS_WITHIN_S)
    operator.kill()
    api.delete("finetunejobs", "left-over")
    operator.start()
    await_submissions(training, "left-over", ["STOPPED"])


def keep_some(everything: Path, kept: Path) -> None:
    """40 training and 10 test images of each digit."""
    for split, number in (("train", 40), ("test", 10)):
        for digit in sorted((everything / split).iterdir()):
            folder = kept / split / digit.name
            folder.mkdir(parents=True)
            for image in sorted(digit.iterdir())[:number]:
                shutil.copy(image, folder)


def await_submissions(training: Training, job: str, statuses: list[str], *, within_s: float = 60) -> None:
    """Until all that was submitted for the job has exactly these statuses; a process ends a little after its record."""
    end = time.monotonic() + within_s
    while (found := training.submissions(job)) and list(found.values()) != statuses:
        assert time.monotonic() < end, f"{job}: {found} and not {statuses} after {within_s:g} s"
        time.sleep(0.5)
    assert found, f"nothing was submitted for {job}"


def epochs_in_history(training: Training, job: str) -> list[int]:
    """The epochs that the delivered history tells of, in its order."""
    history = training.volumes / "models" / job / "history.jsonl"
    return [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
