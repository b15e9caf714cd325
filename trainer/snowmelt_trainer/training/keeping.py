"""Which checkpoints a stage writes, and that they are written while it goes on training."""

from __future__ import annotations

from functools import cached_property

import torch

from snowmelt_trainer.backbones import changing_tensors
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.beside import Beside
from snowmelt_trainer.training.checkpoint import checkpoint_name
from snowmelt_trainer.training.packing import Frozen, Snapshot
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState


class Keeper(Beside):
    """Writes the checkpoints of one stage, one at a time, beside training; only the leading worker's does anything.

    Whoever asked for one hears of it when it lies in storage, and so does status: at the next step after that.
    """

    def __init__(self, rig: Rig, stage: Stage, optimizer: torch.optim.Optimizer, average: AveragedWeights) -> None:
        super().__init__()
        self._rig, self._optimizer, self._average = rig, optimizer, average
        self._changing = changing_tensors(rig.model, rig.groups, stage.trainable)

    @cached_property
    def _frozen(self) -> Frozen | None:
        """What the checkpoints have in common."""
        return Frozen.of(self._rig.model, self._changing)

    def keep(self, state: RunState) -> None:
        """Of the model as it is now, which holds the average. Training may go on at once.

        Raises:
            RunError: StorageFull, OutputUnwritable: of the checkpoint before this one.
        """
        if not self._rig.world.leads:
            return
        name, frozen = checkpoint_name(state.stage + 1, state.epoch, state.step), self._frozen
        copies = Snapshot.of(self._rig.model, self._changing, self._optimizer, self._average.last_step())
        self.do(
            lambda: self._rig.store.write(name, copies.pack_model, copies.pack_optimizer, state, frozen),
            afterwards=lambda: self._written(state),
        )

    def _written(self, state: RunState) -> None:
        self._rig.requests.written()
        self._rig.reporter.kept(state)
