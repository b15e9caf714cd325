"""Runs of one worker in this process, as tests of several files make them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.data.samples import TargetData
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.driver.worker import fine_tune, set_up
from snowmelt_trainer.training import statistics
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.rig import Rig


class PowerCutError(Exception):
    """Ends a run in its course."""


def data_of(config: RunConfig) -> TargetData:
    return open_data(config.data, seed=config.optimization.seed, volumes_root=config.volumes_root)


def run(config: RunConfig, send: Callable[[Progress], None] = lambda _: None) -> Trained:
    """As the only worker."""
    return fine_tune(config, data_of(config), World(), send)


def rig_for(config: RunConfig, send: Callable[[Progress], None] = lambda _: None) -> Rig:
    """What such a run is made with."""
    return set_up(config, data_of(config), World(), send)[1]


def with_optimization(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"optimization": config.optimization.model_copy(update=changes)})


def weights(config: RunConfig, trained: Trained) -> bytes:
    """Of the checkpoint that the run delivers."""
    found = CheckpointStore(Layout.of(config).checkpoints).read_model(trained.checkpoint)
    assert found is not None
    return found


def prefer_anew(put: Callable[[object, str, object], None] = setattr) -> None:
    """From now on a head is the better for statistics that are counted anew."""
    losses = itertools.cycle([0.5, 0.4])
    put(statistics, "_loss_of_a_head", lambda *_: next(losses))
