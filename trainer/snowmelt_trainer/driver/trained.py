"""What training comes to."""

from __future__ import annotations

from typing import Any

from snowmelt_trainer.contract.base import Contract
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.progress import Metrics
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.training.state import RunState


class Trained(Contract):
    """What the leading worker returns when all stages are done. The weights lie in the checkpoint `checkpoint`."""

    reason: Reason
    checkpoint: str
    state: RunState
    validation: Metrics
    test: Metrics
    precision: Precision
    """The one that was chosen."""
    workers: int
    """How many trained in the end."""
    augmentation: Augmentation
    """The level that was used."""
    model: dict[str, Any]
    """The content of model.json."""
