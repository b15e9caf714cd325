"""Ours: the trainer's own `fine_tune`, which each worker of `snowmelt run` calls, as the one worker of this process.

The configuration is the product's defaults. What it costs beyond this call under `snowmelt run`, that is, Ray's start,
is no part of any contender's clock.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.peers.ingredients import BATCH, WEIGHT_DECAY, network, rate_of
from bench.peers.protocol import Trial
from bench.peers.record import Record
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.relay import Sender
from snowmelt_trainer.driver.worker import fine_tune
from snowmelt_trainer.training import evaluate as evaluation
from snowmelt_trainer.training.allocation import keep_freed_memory
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.metrics import Counts, best_of
from snowmelt_trainer.training.packing import unpack_model


class BudgetSpentError(Exception):
    """The fit is to end now."""


def fit(trial: Trial, record: Record) -> nn.Module:
    """The product's defaults: Gradual from the head, no target, each stage until it stops improving."""
    return _fit(trial, record, {}, {})


def fit_everything(trial: Trial, record: Record) -> nn.Module:
    """Everything unfrozen, with the plain loop's batch, rates and epochs: what our loop costs beside a bare one."""
    limits = {"maxEpochs": trial.budget.epochs, "patience": trial.budget.epochs}
    optimization = {
        "batchSize": BATCH,
        "learningRate": rate_of(trial.task.architecture),
        "layerDecay": 1.0,
        "regularization": {"weightDecay": WEIGHT_DECAY, "dropout": 0.0, "labelSmoothing": 0.0},
    }
    return _fit(trial, record, {"strategy": "Full", "stage": limits}, optimization)


def _fit(trial: Trial, record: Record, unfreezing: dict[str, Any], optimization: dict[str, Any]) -> nn.Module:
    with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
        config = configuration(trial, Path(folder), unfreezing, optimization)
        Layout.of(config).checkpoints.mkdir(parents=True)
        data = open_data(config.data, seed=trial.seed, volumes_root="/")
        followed = Followed(record, len(data.train))
        with _own_evaluation_noted(record, followed):
            keep_freed_memory()  # as each worker does
            record.start()
            with suppress(BudgetSpentError):
                fine_tune(config, data, World(device=torch.device(trial.setting.device)), followed)
            if not record.finished:
                record.finish()
        return _best(config, network(trial))


def configuration(trial: Trial, folder: Path, unfreezing: dict[str, Any], optimization: dict[str, Any]) -> RunConfig:
    """What the operator would render from a FineTuneJob that says so much and no more."""
    task = trial.task
    return RunConfig.model_validate(
        {
            "job": {"namespace": "bench", "name": task.name, "uid": f"bench-{trial.seed}"},
            "backbone": task.backbone,
            "data": task.data,
            "unfreezing": unfreezing,
            "optimization": {"seed": trial.seed} | optimization,
            "output": {"uri": folder.as_uri()},
            "workers": {"cpus": trial.setting.threads},
        }
    )


class Followed(Sender):
    """Follows the trainer by the snapshots that it sends, and its evaluations into points of the record."""

    def __init__(self, record: Record, images: int) -> None:
        self._record, self._images = record, images
        self._trained, self._epochs = "", 0

    def __call__(self, progress: Progress) -> None:
        """What the trainer calls.

        Raises:
            BudgetSpentError: the budget's seconds are over.
        """
        self._record.figures["stages"] = [row.model_dump(mode="json", by_alias=True) for row in progress.stages]
        self._record.figures["warnings"] = list(progress.warnings)
        if progress.stage is not None:
            self._trained = f"{progress.stage.index}: {progress.stage.name}"
            if len(progress.stages) == progress.stage.of and not self._record.finished:
                self._record.finish()  # what follows is the final test
        if self._record.spent:
            raise BudgetSpentError

    def evaluated(self, counts: Counts) -> None:
        """After an epoch, when the trainer has looked at the validation data."""
        self._epochs += 1
        self._record.observed(counts.values[Metric.ACCURACY], self._epochs * self._images, self._trained)


@contextmanager
def _own_evaluation_noted(record: Record, followed: Followed) -> Iterator[None]:
    """The trainer evaluates after each epoch by the very function that the peers are evaluated with; the clocks stand
    still meanwhile, as they do for the peers, and what it saw is noted.

    Raises:
        RuntimeError: the trainer's modules do not use that function any more.
    """
    counted = evaluation.compare

    def uncounted(*arguments: Any, **options: Any) -> Any:
        with record.watch.paused():
            found = counted(*arguments, **options)
        if not record.finished:
            followed.evaluated(found[best_of(Metric.ACCURACY, [counts.values for counts in found])])
        return found

    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("snowmelt_trainer.") and getattr(module, "compare", None) is counted
    ]
    if not any(module.__name__ == "snowmelt_trainer.training.rig" for module in users):
        raise RuntimeError("snowmelt_trainer.training.rig does not evaluate by training.evaluate.compare any more")
    for module in users:
        module.compare = uncounted  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.compare = counted  # type: ignore[attr-defined]


def _best(config: RunConfig, model: nn.Module) -> nn.Module:
    """The weights that would be delivered: the best by validation."""
    store = CheckpointStore(Layout.of(config).checkpoints)
    newest = store.newest()
    if newest is None or newest.state.best is None:
        raise RuntimeError("the budget was spent before the first epoch had ended")
    best = store.read(newest.state.best.checkpoint)
    if best is None:
        raise RuntimeError("the best checkpoint cannot be read")
    unpack_model(model, best.model)
    return model
