"""finetuning-scheduler (FTS): with the schedule that it generates, and with one of three phases and early stopping."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning
from finetuning_scheduler import FinetuningScheduler, FTSCheckpoint, FTSEarlyStopping
from torch import nn
from torch.utils.data import DataLoader

from bench.peers.ingredients import image_folder, training_loader
from bench.peers.lightning_module import HEAD_RATE, Classifier, Watch, concluded, trainer
from bench.peers.protocol import Trial
from bench.peers.record import Record

MOST_EPOCHS = 1000
"""Lightning's own default of max_epochs: what ends the fit is the schedule, or the budget's seconds."""
EVALUATION_BATCH = 256


def fit_default(trial: Trial, record: Record) -> nn.Module:
    """`FinetuningScheduler()`: a schedule of two parameters a phase, each until FTSEarlyStopping's defaults end it."""
    return _fit(trial, record, lambda _module: [FinetuningScheduler()])


def fit_early_stopping(trial: Trial, record: Record) -> nn.Module:
    """A schedule as its documentation writes them by hand (head, last group, everything), and its example's early
    stopping."""
    return _fit(
        trial,
        record,
        lambda module: [
            FinetuningScheduler(ft_schedule=three_phases(module)),
            FTSEarlyStopping(monitor="val_loss", min_delta=0.001, patience=2),
            FTSCheckpoint(monitor="val_loss", save_top_k=1),
        ],
    )


def _fit(trial: Trial, record: Record, callbacks: Any) -> nn.Module:
    lightning.seed_everything(trial.seed, verbose=False)
    module = Classifier(trial)
    training = training_loader(trial)
    validation: Any = image_folder(trial.task.root / "validation", trial.task.image_size)
    with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
        fitting = trainer(trial, Path(folder), MOST_EPOCHS, [*callbacks(module), Watch(record)], logger=False)
        record.start()
        fitting.fit(module, training, DataLoader(validation, batch_size=EVALUATION_BATCH))
    return concluded(module, record)


def three_phases(module: Classifier) -> dict[int, dict[str, Any]]:
    """Phase by phase, the parameters that it adds and their rate: a tenth and a hundredth of the head's."""
    names = [name for name, _ in module.named_parameters()]
    head = [name for name in names if name.startswith("head.")]
    backbone = [name for name in names if name.startswith("backbone.")]
    last = [name for name in backbone if name in last_group(module)]
    rest = [name for name in backbone if name not in set(last)]
    phases = ((head, HEAD_RATE), (last, HEAD_RATE / 10), (rest, HEAD_RATE / 100))
    return {depth: {"params": params, "lr": rate} for depth, (params, rate) in enumerate(phases)}


def last_group(module: Classifier) -> set[str]:
    """Names of the parameters of the backbone's last layer group: a network's last stage or block."""
    prefix = "backbone."
    names = [name.removeprefix(prefix) for name, _ in module.named_parameters() if name.startswith(prefix)]
    stems = [stem_of(name) for name in names]
    return {prefix + name for name, stem in zip(names, stems, strict=True) if stem == stems[-1]}


def stem_of(name: str) -> str:
    """The stage that torchvision's names put a parameter in: layer4 of layer4.1.conv2.weight, features.15 of
    features.15.block.0.0.weight, encoder.layers.encoder_layer_11 of what lies in it."""
    parts = name.split(".")
    depth = 3 if parts[:2] == ["encoder", "layers"] else 2 if parts[0] == "features" else 1
    return ".".join(parts[:depth])
