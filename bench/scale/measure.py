"""One fit of so many images, in a process of its own: seconds of each part, and the most memory it had."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.stage.measure import most_resident
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import CacheStatus
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.worker import set_up
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.walk import walk

VALIDATION = 10
"""Every so-manieth image decides."""


@dataclass(frozen=True)
class Task:
    """What all sizes share."""

    images: str
    """A folder of folders, one a class."""
    architecture: str = "resnet18"
    image_size: int = 64
    threads: int = 2
    cache_mib: int = 128
    """Most that the cache of activations may take."""
    decoded_mib: int = 128
    """Most that decoded images may take, of the training and of the validation images each."""


@dataclass(frozen=True)
class Part:
    """One stage of a fit."""

    name: str
    seconds: float
    cached_mib: float
    """0 where the activations were not kept."""


@dataclass(frozen=True)
class Cost:
    """Of one fit."""

    images: int
    reading: float
    """Seconds until every file was found, decoded once and hashed."""
    parts: tuple[Part, ...]
    processor: float
    """Seconds of processor time, of all of it."""
    peak_mib: float
    start_mib: float
    """What was resident before the data was read."""

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.reading + sum(part.seconds for part in self.parts)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Cost:
        """From the JSON of `measure`."""
        return cls(**document | {"parts": tuple(Part(**part) for part in document["parts"])})


def write_table(task: Task, images: int, path: Path) -> None:
    """A manifest of so many images, the same number of each class."""
    classes = sorted(folder for folder in Path(task.images).iterdir() if folder.is_dir())
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uri", "label", "split"))
        for folder in classes:
            for number, image in enumerate(sorted(folder.iterdir())[: images // len(classes)]):
                rows.writerow((f"file://{image}", folder.name, "train" if number % VALIDATION else "validation"))


def measure(task: Task, images: int, scratch: Path) -> Cost:
    """Runs the fit.

    Raises:
        CalledProcessError: it failed; what it wrote to stderr has been shown.
    """
    scratch.mkdir(parents=True)
    table = scratch / "images.csv"
    write_table(task, images, table)
    command = [sys.executable, "-m", "bench.scale.measure", json.dumps(asdict(task)), str(table), str(scratch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Cost.parse(json.loads(done.stdout.splitlines()[-1]))


def fit(task: Task, table: Path, scratch: Path) -> Cost:
    """The head by the solver, then an epoch with the last block."""
    torch.set_num_threads(task.threads)
    start, began, worked = most_resident(), time.perf_counter(), time.process_time()
    config = RunConfig.model_validate(_document(task, table, scratch))
    data = open_data(config.data, seed=0, volumes_root="")
    reading = time.perf_counter() - began
    _, rig = set_up(config, data, World(), lambda _: None)
    for loader in (rig.train, rig.validation):
        loader.dataset.keeps = task.decoded_mib * 2**20 // (3 * task.image_size**2)
    rows = walk(rig).state.rows
    return Cost(
        images=len(data.train) + len(data.validation),
        reading=reading,
        parts=tuple(_part(row.name, row.seconds, row.cache or CacheStatus()) for row in rows),
        processor=time.process_time() - worked,
        peak_mib=most_resident() / 2**20,
        start_mib=start / 2**20,
    )


def _part(name: str, seconds: float, cache: CacheStatus) -> Part:
    return Part(name, round(seconds, 2), round(cache.bytes / 2**20, 1))


def _document(task: Task, table: Path, scratch: Path) -> dict[str, Any]:
    return {
        "job": {"namespace": "bench", "name": "scale", "uid": "scale"},
        "backbone": {"architecture": task.architecture, "weights": "None"},
        "data": {"train": {"uri": f"file://{table}"}, "imageSize": task.image_size, "augmentation": "None"},
        "unfreezing": {
            "strategy": "Custom",
            "stages": [{"unfreeze": ["head"], "maxEpochs": 3}, {"unfreeze": ["layer4", "head"], "maxEpochs": 1}],
        },
        "optimization": {
            "batchSize": 128,
            "cache": {"mode": "Always", "maxBytes": task.cache_mib * 2**20},
            "headStart": "Solver",
            "regularization": {"dropout": 0.0},
        },
        "output": {"uri": f"file://{scratch}/model"},
    }


if __name__ == "__main__":
    print(json.dumps(asdict(fit(Task(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])))))
