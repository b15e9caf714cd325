"""Every manifest in examples/ is trained on its own data from the committed backbone; only its epochs are cut short.
What needs GPUs, and weights from the network, is planned and not trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hack.data import fashion_mnist
from hack.demo.inputs import EXAMPLES, fill_volumes
from snowmelt_cli.checking import check
from snowmelt_cli.local_run import plan_run
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.render.config import worker_group
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.contract.unfreezing import Strategy
from tests.trainer.training.runs import data_of, run

EPOCHS = 1
FASHION_IMAGES = 1000
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("volumes")
    fill_volumes(root)
    (root / "models").mkdir()
    return root


def job(file: Path) -> FineTuneJob:
    report = check([file])
    assert report.findings == []
    ((_, found),) = report.jobs
    return found


def shortened(config: RunConfig) -> RunConfig:
    """The same run with one epoch a stage."""
    unfreezing = config.unfreezing
    stage = unfreezing.stage.model_copy(update={"max_epochs": EPOCHS})
    stages = tuple(each.model_copy(update={"max_epochs": EPOCHS}) for each in unfreezing.stages)
    return config.model_copy(update={"unfreezing": unfreezing.model_copy(update={"stage": stage, "stages": stages})})


def needs_gpus(file: Path) -> bool:
    return "nvidia.com/gpu" in file.read_text(encoding="utf-8")


def need_fashion_mnist(volumes: Path) -> None:
    if not fashion_mnist.SOURCE.is_dir() and not os.environ.get("CI"):
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
    fashion_mnist.write(fashion_mnist.SOURCE, volumes / "fashion-mnist", FASHION_IMAGES)


@pytest.mark.parametrize("file", [file for file in FILES if not needs_gpus(file)], ids=lambda file: file.stem)
def test_an_example_trains_and_learns(volumes: Path, tmp_path: Path, file: Path) -> None:
    if file.stem == "fashion-mnist":
        need_fashion_mnist(volumes)
    config = shortened(plan_run(job(file), volumes=volumes, cache=tmp_path).config)
    trained = run(config)
    rows = trained.state.rows
    assert len(rows) == 1 if config.unfreezing.strategy in (Strategy.HEAD_ONLY, Strategy.FULL) else len(rows) >= 2
    # Ten classes: guessing gets a tenth.
    assert float(trained.validation["accuracy"]) > 0.4
    assert bool(trained.test) is (data_of(config).test is not None)


@pytest.mark.parametrize("file", [file for file in FILES if needs_gpus(file)], ids=lambda file: file.stem)
def test_an_example_for_gpus_asks_for_one_in_each_worker(file: Path) -> None:
    workers = worker_group(job(file).spec)
    assert (workers.replicas, workers.gpus) == (2, 1)


def test_the_list_of_examples_names_every_file() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FILES if f"[{file.name}]({file.name})" not in listed] == []
