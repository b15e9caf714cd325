"""What is trained: images of Fashion-MNIST, a network, and the cases that take turns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.data.fashion_mnist import SOURCE, write
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.optimization import Precision

MOST_EPOCHS = 10_000
"""No stage of the benchmark ends by itself."""


@dataclass(frozen=True)
class Work:
    """The data, the network and the arithmetic that all cases share."""

    images: Path
    """An image folder `train`."""
    architecture: str = "resnet18"
    image_size: int = 64
    batch_size: int = 64
    threads: int = 2
    epochs: int = 3
    """How many are timed in a row, since a run writes the checkpoint of one beside the next."""
    device: str = "cpu"
    """As torch names it."""


@dataclass(frozen=True)
class Case:
    """One way to train an epoch."""

    name: str
    unfreeze: tuple[str, ...] | None
    """The layer groups that our stage trains; None: the plain loop, which trains everything."""
    cached: bool = False
    solved: bool = False
    """Whether the head is found by the solver."""
    averaged: bool = True
    """Whether the average of the weights is kept, as it is by default and is not by the plain loop."""
    aim: float | None = None
    """How many times as fast as the plain loop an epoch has to be."""
    short: bool = False
    """Whether its epochs are too short to time so few of them."""


CASES = (
    Case("plain loop, everything trained", None, averaged=False),
    Case("ours, everything trained", ("*",), aim=1 / 1.03),
    Case("ours, everything trained, no average of weights", ("*",), averaged=False),
    Case("ours, frozen to layer3", ("layer4", "head"), aim=1.9),
    Case("ours, frozen to layer3, cached", ("layer4", "head"), cached=True, aim=3.3),
    Case("ours, frozen to layer3, cached, no average of weights", ("layer4", "head"), cached=True, averaged=False),
    Case("ours, head alone", ("head",)),
    Case("ours, head alone, cached", ("head",), cached=True, aim=100.0, short=True),
    Case("ours, head alone, by the solver", ("head",), cached=True, solved=True, short=True),
)


SHORT = 10
"""How many short epochs are timed in a row."""


def write_images(folder: Path, images: int) -> Path:
    """Image folder `train`, of `images` images."""
    write(SOURCE, folder, images)
    return folder


def config_of(work: Work, case: Case, precision: Precision, output: Path) -> RunConfig:
    """The run whose only stage is the case's."""
    cache = {"mode": "Always" if case.cached else "Never"}
    return RunConfig.model_validate(_document(work, case, precision, output, cache))


def _document(work: Work, case: Case, precision: Precision, output: Path, cache: dict[str, Any]) -> dict[str, Any]:
    return {
        "job": {"namespace": "bench", "name": "stage", "uid": "stage"},
        "backbone": {"architecture": work.architecture, "weights": "None"},
        "data": {
            "train": {"uri": f"file://{work.images}/train"},
            "validation": {"fraction": 0.1},
            "imageSize": work.image_size,
            "augmentation": "None",
        },
        "unfreezing": {
            "strategy": "Custom",
            "stages": [{"unfreeze": list(case.unfreeze or ("*",))}],
            "stage": {"maxEpochs": MOST_EPOCHS, "patience": 1000},
        },
        "optimization": {
            "batchSize": work.batch_size,
            "precision": precision,
            "schedule": "Constant",
            "cache": cache,
            "headStart": "Solver" if case.solved else "Epochs",
            "regularization": {"ema": None if case.averaged else 0.0},
        },
        "output": {"uri": f"file://{output}"},
    }
