"""What the README promises, on a real cluster: install, apply, wait, and a model as good as one trained here."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from hack.demo.inputs import EXAMPLES
from tests_e2e.product.jobs import example
from tests_e2e.product.world import Namespace

pytestmark = pytest.mark.core


def test_digits_is_trained_by_two_pods_on_two_nodes_as_well_as_on_one_machine(
    namespace: Namespace, tmp_path: Path
) -> None:
    manifest = example("digits")
    with ThreadPoolExecutor() as pool:
        run = pool.submit(_run_here, manifest, namespace, tmp_path)
        job = namespace.apply(manifest)
        job.await_epoch(1)
        workers = job.pods("worker")
        assert len({pod["spec"]["nodeName"] for pod in workers}) == len(workers) == 2
        status = job.complete()
        here = run.result()
    there = json.loads(job.output.read("metrics.json"))
    assert there["test"] == here["test"] == status["result"]["test"]
    assert there["validation"] == here["validation"]
    assert job.rayjobs() == ["digits-a1"]
    job.output.copy_to(tmp_path / "model")
    # Evaluation is in the run's own precision, in which an image that lies between two classes may fall on either side.
    found = _accuracy(tmp_path / "model", namespace.world.inputs / "digits/test")
    assert abs(found - float(there["test"]["accuracy"])) < 0.01


def _accuracy(model: Path, images: Path) -> float:
    """Of the delivered model, by a program that knows nothing of Snowmelt."""
    files = sorted(str(file) for file in images.rglob("*.png"))
    command = [sys.executable, EXAMPLES / "predict.py", model, *files]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.splitlines()
    right = [Path(file).parent.name == label for file, label, _ in (line.split("\t") for line in said)]
    assert len(right) == len(files) > 100
    return sum(right) / len(right)


def _run_here(manifest: dict[str, object], namespace: Namespace, folder: Path) -> dict[str, object]:
    """metrics.json of the same job run by `snowmelt run`."""
    volumes = folder / "volumes"
    for claim in ("digits", "backbones"):
        (volumes / claim).parent.mkdir(exist_ok=True)
        (volumes / claim).symlink_to(namespace.world.inputs / claim)
    (volumes / "models").mkdir()
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "snowmelt_cli", "run", file, "--volumes", volumes]
    subprocess.run(command, check=True, timeout=900)
    metrics: dict[str, object] = json.loads((volumes / "models" / "digits" / "metrics.json").read_text())
    return metrics
