"""The one function by which everyone is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import nn

from bench.peers.protocol import Trial
from bench.peers.record import Record
from bench.tasks.task import Task
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.contract.data import Augmentation, Data
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.loading import EvaluationLoader
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import View
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.evaluate import evaluate

BATCH = 256


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def opened(task: Task) -> dict[Split, SampleSet]:
    """Images and labels, as the trainer finds them."""
    data = open_data(
        Data.model_validate(
            {
                "train": {"uri": (task.root / "train").as_uri()},
                "validation": {"uri": (task.root / "validation").as_uri()},
                "test": {"uri": (task.root / "test").as_uri()},
            }
        ),
        seed=0,
        volumes_root="/",
    )
    if data.test is None:
        raise ValueError(f"{task.root} has no test images")
    return {Split.TRAIN: data.train, Split.VALIDATION: data.validation, Split.TEST: data.test}


def accuracy_on(samples: SampleSet, trial: Trial) -> Callable[[nn.Module], float]:
    """A function that measures a model by `snowmelt_trainer.training.evaluate`; it keeps the decoded images."""
    task, setting = trial.task, trial.setting
    view = View(task.image_size, IMAGENET_PREPROCESSING, Augmentation.NONE)
    world = World(device=torch.device(setting.device))
    loader = EvaluationLoader(ImageDataset(samples, view), batch=BATCH, rank=0, world=1)
    precision = Precision.BFLOAT16 if setting.bfloat16 else Precision.FLOAT32

    def accuracy(model: nn.Module) -> float:
        counts = evaluate(
            model,
            loader,
            classes=len(task.classes),
            world=world,
            precision=precision,
            preprocessing=IMAGENET_PREPROCESSING,
        )
        return sum(counts.correct) / sum(counts.total)

    return accuracy


def recorder(trial: Trial, splits: dict[Split, SampleSet]) -> Record:
    """A record that looks at the validation images after each epoch."""
    every = len(splits[Split.TRAIN])
    return Record(accuracy_on(splits[Split.VALIDATION], trial), trial.budget, every, device=trial.setting.device)
