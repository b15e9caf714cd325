"""Runs of several workers under a real Ray: they agree, they survive a killed one, and failures keep their names."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist

from snowmelt_trainer.backbones import IMAGENET_PREPROCESSING, build_backbone, load_model
from snowmelt_trainer.contract import Outcome, Reason, RunConfig
from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.progress import FinalRecord, Progress
from snowmelt_trainer.data.boundary import Boundary
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.folder import list_folder
from snowmelt_trainer.data.loading import EvaluationLoader
from snowmelt_trainer.data.transforms import View
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.failures import explain
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.main import fine_tune
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.evaluate import evaluate
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.state import Epoch
from tests.trainer.training.processes import train_workers

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
Configure = Callable[..., RunConfig]

TWO_WORKERS = {
    "workers": {"replicas": 2},
    "unfreezing": {"strategy": "Gradual", "maxStages": 3, "stage": {"maxEpochs": 2}},
    "optimization": {"batchSize": 45, "precision": "Float32", "checkpointEverySteps": 3, "headStart": "Epochs"},
}


def announced(
    config: RunConfig, react: Callable[[Progress], None] = lambda _: None
) -> tuple[FinalRecord, list[Progress]]:
    sent: list[Progress] = []

    def put(progress: Progress) -> None:
        sent.append(progress)
        react(progress)

    return fine_tune(config, Announcer(config.job.attempt, put)), sent


def history(config: RunConfig) -> list[Epoch]:
    lines = (Layout.of(config).root / "history.jsonl").read_text().splitlines()
    return [Epoch.model_validate_json(line) for line in lines]


def without_times(epochs: list[Epoch]) -> list[dict[str, Any]]:
    return [epoch.model_dump(exclude={"seconds", "samples_per_second"}) for epoch in epochs]


@pytest.fixture(scope="module")
def undisturbed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of two workers that nothing happened to, already done."""
    config = _two_workers(digits, tmp_path_factory.mktemp("undisturbed"))
    assert announced(config)[0].outcome is Outcome.SUCCEEDED
    return config


def _two_workers(digits: Path, output: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "job": {"namespace": "tests", "name": "digits", "uid": "two"},
            "backbone": {"architecture": "shufflenet_v2_x0_5", "weights": "None"},
            "data": {
                "train": {"uri": f"file://{digits}/train"},
                "validation": {"fraction": 0.25},
                "test": {"uri": f"file://{digits}/test"},
                "imageSize": 32,
            },
            "output": {"uri": f"file://{output}"},
            **TWO_WORKERS,
        }
    )


def test_two_workers_end_with_identical_weights_after_every_unfreezing(undisturbed: RunConfig) -> None:
    ends = [epoch for epoch in history(undisturbed) if epoch.ended]
    assert [epoch.name for epoch in ends] == ["head", "stage4..conv5", "stem..stage3"]
    assert [len(epoch.weights) for epoch in ends] == [2, 2, 2]
    assert [len(set(epoch.weights)) for epoch in ends] == [1, 1, 1]
    assert len({epoch.weights[0] for epoch in ends}) == 3


def test_a_killed_worker_changes_nothing_in_the_outcome(undisturbed: RunConfig, digits: Path, tmp_path: Path) -> None:
    config = _two_workers(digits, tmp_path)
    killed: list[int] = []

    def kill_one_in_mid_stage(progress: Progress) -> None:
        kept = progress.checkpoint
        if not killed and kept is not None and kept.stage == 2 and kept.step % 4:
            killed.append(train_workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    record, sent = announced(config, kill_one_in_mid_stage)
    assert len(killed) == 1
    assert record.outcome is Outcome.SUCCEEDED
    first = sent[0].sequence
    assert [progress.sequence - first for progress in sent] == list(range(len(sent)))
    assert without_times(history(config)) == without_times(history(undisturbed))
    assert (tmp_path / "model.safetensors").read_bytes() == (
        Layout.of(undisturbed).root / "model.safetensors"
    ).read_bytes()


def test_the_published_model_can_be_loaded_and_is_the_one_that_was_measured(undisturbed: RunConfig) -> None:
    root = Layout.of(undisturbed).root
    assert {path.name for path in root.iterdir() if path.is_file()} == {
        "model.safetensors", "model.json", "metrics.json", "history.jsonl", "run.json", "record.json",
    }  # fmt: skip
    record = FinalRecord.model_validate_json((root / "record.json").read_bytes())
    model, classes, preprocessing = load_model(root)
    assert classes == tuple("0123456789")
    listing = list_folder(Path(undisturbed.data.test.uri.removeprefix("file://")), "test", Boundary(None))  # type: ignore[union-attr]
    samples = ImageDataset(listing.indexed(classes), View(image_size=32, preprocessing=preprocessing))
    loader = EvaluationLoader(samples, batch=30, rank=0, world=1)
    counts = evaluate(
        model, loader, classes=10, world=World(), precision=Precision.FLOAT32, preprocessing=preprocessing
    )
    assert record.result is not None
    assert record.result.test["accuracy"] == f"{sum(counts.correct) / sum(counts.total):.6g}"


def test_a_second_attempt_at_a_finished_run_only_says_so_again(undisturbed: RunConfig) -> None:
    again = undisturbed.model_copy(update={"job": undisturbed.job.model_copy(update={"attempt": 2})})
    record, sent = announced(again)
    assert record == FinalRecord.model_validate_json(Layout.of(undisturbed).record.read_bytes())
    assert len(sent) == 1


def test_a_failure_in_a_worker_keeps_its_name_and_is_not_tried_again(configure: Configure, tmp_path: Path) -> None:
    torch.save({"a": Unpicklable()}, tmp_path / "weights.pt")
    config = configure(backbone={"weights": None, "weightsFrom": {"uri": f"file://{tmp_path}/weights.pt"}})
    with pytest.raises(ray.train.ControllerError) as caught:
        announced(config)
    reason, message = explain(caught.value)
    assert reason is Reason.WEIGHTS_UNSAFE
    assert "weights.pt" in message
    assert "Traceback" not in message


class Unpicklable:
    """Something that only a pickle that runs code could rebuild."""


@ray.remote(num_cpus=1)
def count(rank: int, size: int, meeting_place: str, digits: str) -> Counts:
    """What worker `rank` of `size` finds in the test set, after all have added up."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting_place}", rank=rank, world_size=size)
    try:
        backbone = build_backbone(
            Backbone(architecture="shufflenet_v2_x0_5", weights="None"),
            num_classes=10, dropout=0.0, seed=3, volumes_root="", image_size=32,
        )  # fmt: skip
        samples = list_folder(Path(digits) / "test", "test", Boundary(None)).indexed(tuple("0123456789"))
        dataset = ImageDataset(samples, View(image_size=32, preprocessing=IMAGENET_PREPROCESSING))
        loader = EvaluationLoader(dataset, batch=7, rank=rank, world=size)
        return evaluate(
            backbone.model,
            loader,
            classes=10,
            world=World(rank, size),
            precision=Precision.FLOAT32,
            preprocessing=IMAGENET_PREPROCESSING,
        )
    finally:
        if size > 1:
            dist.destroy_process_group()


def test_one_two_and_three_workers_count_the_same(digits: Path, tmp_path: Path) -> None:
    found = [
        ray.get([count.remote(rank, size, str(tmp_path / f"meeting-{size}"), str(digits)) for rank in range(size)])
        for size in (1, 2, 3)
    ]
    everyone = [counts for group in found for counts in group]
    assert sum(everyone[0].total) == 60
    assert {(counts.correct, counts.total) for counts in everyone} == {(everyone[0].correct, everyone[0].total)}
    assert [counts.loss_sum for counts in everyone] == pytest.approx([everyone[0].loss_sum] * 6, rel=1e-6)
