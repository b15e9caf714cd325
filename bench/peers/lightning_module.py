"""The LightningModule of the two peers that are driven by Lightning's Trainer."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional

from bench.peers.ingredients import arranged, head_of, network
from bench.peers.protocol import Setting, Trial
from bench.peers.record import Record

HEAD_RATE = 1e-3
"""Of Adam: that of BackboneFinetuning's example."""


class Classifier(lightning.LightningModule):
    """Backbone and head apart, as BackboneFinetuning wants them."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        whole = network(trial)
        self.head = head_of(whole)
        for name in ("fc", "classifier", "heads"):
            if hasattr(whole, name):
                setattr(whole, name, nn.Identity())
        self.backbone = whole
        self.setting: Setting = trial.setting

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self(arranged(images, self.setting)).float(), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        images, labels = batch
        self.log("val_loss", functional.cross_entropy(self(arranged(images, self.setting)).float(), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=HEAD_RATE)


class Watch(Callback):
    """Tells the record of each step; what Lightning validates by itself does not count on the clocks."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._paused: Any = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, _outputs: Any, batch: Any, _index: int
    ) -> None:
        if not self.record.step(pl_module, len(batch[1])):
            trainer.should_stop = True

    def on_validation_start(self, _trainer: lightning.Trainer, _pl_module: Any) -> None:
        self._paused = self.record.watch.paused()
        self._paused.__enter__()

    def on_validation_end(self, _trainer: lightning.Trainer, _pl_module: Any) -> None:
        self._paused.__exit__(None, None, None)


def trainer(trial: Trial, folder: Path, epochs: int, callbacks: list[Any], **more: Any) -> lightning.Trainer:
    """Lightning's Trainer, with its own defaults but for what would print or draw."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if trial.setting.device == "cuda" else "cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=callbacks,
        precision="bf16-mixed" if trial.setting.bfloat16 else "32-true",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )


def concluded(module: Classifier, record: Record) -> nn.Module:
    """The fitted module, looked at a last time where it was trained: Lightning has taken it back from there."""
    module.to(module.setting.device)
    record.look(module)
    record.finish()
    return module
