"""The plain loop: what one writes by hand to fine-tune everything, in our arithmetic and memory format. Images lie in
the device's memory, decoded and normalised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.training.precision import autocast, place


class PlainLoop:
    """Trains all parameters with AdamW and validates after each epoch; keeps nothing on disk."""

    def __init__(
        self,
        model: nn.Module,
        train: ImageDataset,
        validation: ImageDataset,
        *,
        batch: int,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.model, self.batch, self.precision, self.device = model, batch, precision, device
        self.images, self.labels = _in_memory(train, device)
        self.held_out = _in_memory(validation, device)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def train(self) -> None:
        """One epoch's steps."""
        self.model.train()
        for ids in torch.randperm(len(self.labels), device=self.device).split(self.batch):
            with autocast(self.precision, self.device):
                logits = self.model(self.images[ids])
            loss = functional.cross_entropy(logits.float(), self.labels[ids], label_smoothing=0.1)
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def validate(self) -> float:
        """Accuracy on the validation images."""
        self.model.eval()
        images, labels = self.held_out
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, len(labels), self.batch):
            with autocast(self.precision, self.device):
                logits = self.model(images[start : start + self.batch])
            right += (logits.argmax(1) == labels[start : start + self.batch]).sum()
        return int(right) / len(labels)


def _in_memory(dataset: ImageDataset, device: torch.device) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(np.stack([dataset.square(i) for i in range(len(dataset))]))
    return place(pixels, device, dataset.view.preprocessing), dataset.labels.to(device)
