"""One task, as every contender is given it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.tasks.images import TaskName, splits_of
from bench.tasks.places import cache_root
from bench.tasks.pretraining import weights_of
from hack.data.folders import write_folders


@dataclass(frozen=True)
class Task:
    """Image folders ROOT/{train,validation,test}/<class>/, a network, and the weights to start from."""

    name: str
    root: Path
    architecture: str
    image_size: int
    weights: Path | None
    """A safetensors file; None starts from scratch."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(folder.name for folder in (self.root / "train").iterdir()))

    @property
    def backbone(self) -> dict[str, Any]:
        """`spec.backbone` of a FineTuneJob."""
        weights = {"weights": "None"} if self.weights is None else {"weightsFrom": {"uri": self.weights.as_uri()}}
        return {"architecture": self.architecture, **weights}

    @property
    def data(self) -> dict[str, Any]:
        """`spec.data` of a FineTuneJob."""
        return {
            "train": {"uri": (self.root / "train").as_uri()},
            "validation": {"uri": (self.root / "validation").as_uri()},
            "imageSize": self.image_size,
            "augmentation": "None",
        }


def task_of(name: TaskName, architecture: str, image_size: int) -> Task:
    """The task with its data and weights in the cache; makes them first where they are not."""
    return Task(name, folders_of(name), architecture, image_size, weights_of(architecture))


def folders_of(name: TaskName) -> Path:
    """The folder with the task's images as PNG files; written where it does not exist."""
    root = cache_root() / "data" / name
    if not root.exists():
        beside = root.with_name(f".{name}.writing")
        for split, images in splits_of(name).items():
            pictures = ((label, f"{i:05d}", Image.fromarray(images.pixels[i])) for i, label in enumerate(images.labels))
            write_folders(beside / split, pictures)
        beside.rename(root)
    return root
