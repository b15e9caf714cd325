"""One fit, with the cache as it is set: what it got right of the test images, and what was kept."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.tasks.task import Task
from snowmelt_trainer.backbones import describe_groups
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.worker import fine_tune
from snowmelt_trainer.training.distributed import World


@dataclass(frozen=True)
class Case:
    """How a fit is set up."""

    name: str
    augmentation: Augmentation
    cache: dict[str, Any] = field(hash=False)
    """`spec.optimization.cache` of a FineTuneJob."""
    reference: bool = False
    """Whether the others of the same augmentation are compared with it: it keeps nothing."""


CASES = (
    Case("Never", Augmentation.NONE, {"mode": "Never"}, reference=True),
    Case("Auto", Augmentation.NONE, {"mode": "Auto"}),
    Case("Never", Augmentation.STANDARD, {"mode": "Never"}, reference=True),
    Case("Auto", Augmentation.STANDARD, {"mode": "Auto"}),
    Case("4 views, as asked", Augmentation.STANDARD, {"mode": "Always", "views": 4}),
)


@dataclass(frozen=True)
class Outcome:
    """Of one fit."""

    test: float
    """Accuracy on the test images, in [0, 1]."""
    kept: int
    """Bytes of activations, over the stages."""
    seconds: float


def fit(task: Task, case: Case, seed: int, epochs: int) -> Outcome:
    """The head by ordinary epochs, then the last group as well: two stages that a cache can serve.

    Raises:
        RunError: the fit failed.
    """
    with tempfile.TemporaryDirectory(prefix="snowmelt-cached-") as scratch:
        config = RunConfig.model_validate(_document(task, case, seed, epochs, Path(scratch)))
        Layout.of(config).checkpoints.mkdir(parents=True)
        data = open_data(config.data, seed=seed, volumes_root="/")
        began = time.perf_counter()
        trained = fine_tune(config, data, World(device=torch.device("cpu")), lambda _: None)
        seconds = time.perf_counter() - began
    return Outcome(
        test=float(trained.test[Metric.ACCURACY]),
        kept=sum(row.cache.bytes for row in trained.state.rows if row.cache is not None),
        seconds=seconds,
    )


def _document(task: Task, case: Case, seed: int, epochs: int, scratch: Path) -> dict[str, Any]:
    *_, last, head = describe_groups(task.architecture, num_classes=len(task.classes), image_size=task.image_size)
    test = {"test": {"uri": (task.root / "test").as_uri()}, "augmentation": case.augmentation}
    return {
        "job": {"namespace": "bench", "name": "cached", "uid": f"cached-{seed}"},
        "backbone": task.backbone,
        "data": task.data | test,
        "unfreezing": {
            "strategy": "Custom",
            "stages": [{"unfreeze": [head.name]}, {"unfreeze": [last.name, head.name]}],
            "stage": {"maxEpochs": epochs, "patience": epochs},
        },
        "optimization": {"seed": seed, "cache": case.cache, "headStart": "Epochs"},
        "output": {"uri": scratch.as_uri()},
    }
