"""`snowmelt run` with the real trainer, on real digits, from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hack.data import digits
from hack.demo.inputs import EXAMPLES
from hack.kube import marked
from hack.kube.controlplane import eventually
from tests.commands import Start, read_until, snowmelt_commands

MARK = "RUN_OF_A_SNOWMELT_TEST"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    volumes = tmp_path_factory.mktemp("volumes")
    digits.write(volumes / "digits")
    return volumes


@pytest.fixture
def run(volumes: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts `snowmelt run` on a manifest; a mark in the environment tells what it left behind."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), MARK: str(tmp_path), "OMP_NUM_THREADS": "1"}
    with snowmelt_commands() as start:
        yield lambda job: start("run", job, "--volumes", volumes, environment=environment)
    marked.kill(MARK, str(tmp_path))


def manifest(folder: Path, name: str, *, train: str = "pvc://digits/test", epochs: int = 2) -> Path:
    document = {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "backbone": {"architecture": "shufflenet_v2_x0_5", "weights": "None"},
            "data": {"train": {"uri": train}, "imageSize": 32},
            "unfreezing": {"strategy": "LinearProbeThenFineTune", "stage": {"maxEpochs": epochs, "patience": epochs}},
            "optimization": {"batchSize": 64, "headStart": "Epochs"},
            "output": {"uri": f"pvc://models/{name}"},
        },
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_run_stopped_by_ctrl_c_leaves_nothing_running_and_goes_on_when_it_is_run_again(
    run: Start, volumes: Path, tmp_path: Path
) -> None:
    job = manifest(tmp_path, "resumed", epochs=3)
    first = run(job)
    read_until(first, "stage 2/2")
    first.send_signal(signal.SIGINT)
    said, errors = first.communicate(timeout=120)
    assert (first.returncode, errors) == (130, "")
    assert "stopped. The same command goes on from stage " in said
    eventually(lambda: marked.processes(MARK, str(tmp_path)) == [], "Ray's workers outlive their raylet", 20.0)

    second = run(job)
    said, errors = second.communicate(timeout=300)
    assert (second.returncode, errors) == (0, "")
    assert "stage 1/2" not in said, "the first stage was trained already"
    assert "Succeeded   StagesCompleted" in said
    model = volumes / "models/resumed/model.safetensors"
    assert f"model       {model}" in said
    assert model.stat().st_size > 1_000_000

    third = run(job)
    said, _ = third.communicate(timeout=120)
    assert third.returncode == 0
    assert "parameters are trained" not in said, "a finished run is not done again"
    assert_is_used_without_snowmelt(model.parent, volumes / "digits/test")


def assert_is_used_without_snowmelt(model: Path, images: Path) -> None:
    """The delivered model is one of torchvision's, which the program in examples/ loads."""
    files = sorted(images.glob("*/*.png"))[:70]
    command = [sys.executable, EXAMPLES / "predict.py", model, *files]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    assert [line.split("\t")[0] for line in said] == [str(file) for file in files]
    assert {line.split("\t")[1] for line in said} <= set("0123456789")


def test_a_run_that_fails_says_why_without_a_trace(run: Start, volumes: Path, tmp_path: Path) -> None:
    (volumes / "digits/empty/0").mkdir(parents=True, exist_ok=True)
    process = run(manifest(tmp_path, "empty", train="pvc://digits/empty"))
    said, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (1, "")
    assert "Traceback" not in said
    assert "Failed" in said
    assert str(volumes / "digits/empty") in said
    assert "trainer.log" in said
