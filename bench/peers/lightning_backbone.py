"""Lightning's BackboneFinetuning with its defaults: the head alone for 10 epochs, then everything."""

from __future__ import annotations

import tempfile
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from bench.peers.ingredients import training_loader
from bench.peers.lightning_module import Classifier, Watch, concluded, trainer
from bench.peers.protocol import Trial
from bench.peers.record import Record

FROZEN_EPOCHS = 10
"""unfreeze_backbone_at_epoch's default. The budget's epochs follow, so that the method gets to its point."""


def fit(trial: Trial, record: Record) -> nn.Module:
    """As the example in its documentation, with as many epochs unfrozen as full fine-tuning has."""
    lightning.seed_everything(trial.seed, verbose=False)
    module = Classifier(trial)
    loader = training_loader(trial)
    with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
        fitting = trainer(
            trial, Path(folder), FROZEN_EPOCHS + trial.budget.epochs, [BackboneFinetuning(), Watch(record)]
        )
        record.start()
        fitting.fit(module, loader)
    return concluded(module, record)
