"""What several peers share: the network with the common weights, image folders as torchvision reads them, the
optimizer's usual settings."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as untyped_transforms
from torchvision.datasets import ImageFolder

from bench.peers.protocol import Setting, Trial
from snowmelt_trainer.backbones import build_backbone
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.contract.backbone import Backbone

transforms: Any = untyped_transforms  # torchvision ships no types
BATCH = 64
"""fastai's default."""
WEIGHT_DECAY = 0.05
RATE = {"vit_b_16": 1e-4}
USUAL_RATE = 1e-3
"""Peak of AdamW under one cycle, where everything is trained: what did best in the first trials of full fine-tuning."""


def rate_of(architecture: str) -> float:
    """The peak learning rate of full fine-tuning."""
    return RATE.get(architecture, USUAL_RATE)


def network(trial: Trial) -> nn.Module:
    """The network with the common weights and a new linear head, seeded."""
    task = trial.task
    backbone = Backbone.model_validate(task.backbone)
    model = build_backbone(
        backbone,
        num_classes=len(task.classes),
        dropout=0.0,
        seed=trial.seed,
        volumes_root="/",
        image_size=task.image_size,
    ).model
    if trial.setting.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.to(trial.setting.device)


def head_of(model: nn.Module) -> nn.Module:
    """torchvision's names for the classifier."""
    for name in ("fc", "classifier", "heads"):
        if hasattr(model, name):
            head: nn.Module = getattr(model, name)
            return head
    raise ValueError("a network without fc, classifier or heads")


class Decoded(Dataset[tuple[Tensor, int]]):
    """A data set whose samples stay in memory once they were read."""

    def __init__(self, source: Dataset[tuple[Tensor, int]], size: int) -> None:
        self.source, self.kept = source, dict[int, tuple[Tensor, int]]()
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index not in self.kept:
            self.kept[index] = self.source[index]
        return self.kept[index]


def image_folder(folder: Path, image_size: int) -> ImageFolder:
    """As torchvision's documentation has it, without augmentation, which no contender uses here."""
    return ImageFolder(
        folder,
        transforms.Compose(
            [
                transforms.Resize((image_size, image_size)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_PREPROCESSING.mean, IMAGENET_PREPROCESSING.std),
            ]
        ),
    )


def training_loader(trial: Trial) -> DataLoader[Any]:
    """Shuffled batches of the training images; the last one may be smaller, unless it is a single image."""
    task = trial.task
    images: Any = image_folder(task.root / "train", task.image_size)
    size = len(images)
    return DataLoader(
        Decoded(images, size) if trial.setting.decode_once else images,
        batch_size=BATCH,
        shuffle=True,
        drop_last=size % BATCH == 1,
        generator=torch.Generator().manual_seed(trial.seed),
        pin_memory=trial.setting.device == "cuda",
    )


def arranged(images: Tensor, setting: Setting) -> Tensor:
    """Images on the device and in the memory format of the cell."""
    there = images.to(setting.device, non_blocking=True)
    return there.contiguous(memory_format=torch.channels_last) if setting.channels_last else there


def autocast(setting: Setting) -> contextlib.AbstractContextManager[Any]:
    """The precision of the cell."""
    return torch.autocast(setting.device, dtype=torch.bfloat16, enabled=setting.bfloat16)
