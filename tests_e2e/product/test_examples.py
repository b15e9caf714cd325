"""Every manifest of examples/ on the cluster: applied as it stands, it trains; what needs GPUs is placed on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from hack.data import fashion_mnist
from hack.demo.inputs import EXAMPLES
from hack.kube.controlplane import eventually
from tests_e2e.product.jobs import ASKS_EVERY_S, Job
from tests_e2e.product.world import CLAIMS, Namespace, World

IMAGES = 1000
"""Of Fashion-MNIST's 60,000: the manifest is tried, not the patience."""
ALL_WITHIN_S = 1500.0
GPU = "nvidia.com/gpu"
CORE = ("manifest",)
"""Beside digits.yaml, which has a test of its own."""
FILES = sorted(EXAMPLES.glob("*.yaml"))


def document(file: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(file.read_text())
    return found


def needs_gpus(file: Path) -> bool:
    return GPU in file.read_text()


@pytest.fixture(scope="module")
def crowd(world: World, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace in which all examples of this run are applied at once, as teams do."""
    fashion_mnist.write(fashion_mnist.SOURCE, world.inputs / "fashion-mnist", IMAGES)
    namespace = world.namespace("examples", claims=(*CLAIMS, "fashion-mnist"))
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "crowd" in item.fixturenames:
            namespace.kubectl("apply", "-n", namespace.name, "-f", item.callspec.params["file"])
    yield namespace
    namespace.delete()


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.core] if file.stem in CORE else [])
        for file in FILES
        if not needs_gpus(file)
    ],
)
def test_an_example_trains_to_its_end(crowd: Namespace, file: Path) -> None:
    job = Job(crowd, file.stem)
    status = job.complete(ALL_WITHIN_S)
    assert status["attempts"]["current"] == 1
    assert job.output.holds("model.safetensors")
    metrics = json.loads(job.output.read("metrics.json"))
    # Ten classes: guessing gets a tenth.
    assert float(metrics["validation"]["accuracy"]) > 0.6


@pytest.mark.core
@pytest.mark.breaks
@pytest.mark.parametrize("file", [file for file in FILES if needs_gpus(file)], ids=lambda file: file.stem)
def test_an_example_for_gpus_gets_one_on_each_node(world: World, namespace: Namespace, file: Path) -> None:
    """The nodes only say that they have GPUs, so that placement is all that can be seen."""
    for node in world.nodes:
        world.advertise(node, GPU, 1)
    try:
        job = namespace.apply(document(file))
        eventually(partial(are_placed, job), "the workers are not placed", 120.0, ASKS_EVERY_S)
        workers = job.pods("worker")
        assert len({pod["spec"]["nodeName"] for pod in workers}) == len(workers) == 2
        limits = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in workers]
        assert [limit[GPU] for limit in limits] == ["1", "1"]
    finally:
        for node in world.nodes:
            world.advertise(node, GPU, 0)


def are_placed(job: Job) -> bool:
    workers = job.pods("worker")
    return len(workers) == 2 and all(pod["spec"].get("nodeName") for pod in workers)
