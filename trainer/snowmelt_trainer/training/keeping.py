"""Which checkpoints a stage writes, and that they are written while it goes on training."""

from __future__ import annotations

from functools import cached_property

import torch

from snowmelt_trainer.backbones import changing_tensors
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.beside import Beside, Piece
from snowmelt_trainer.training.checkpoint import checkpoint_name
from snowmelt_trainer.training.packing import Frozen, Snapshot
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState


class Keeper(Beside):
    """Writes the checkpoints of one stage, one at a time, beside training; only the leading worker's does anything.

    Where epochs are shorter than it takes to write them down, training does not wait: of the epochs that end meanwhile
    the newest is written next, or the best where that is not the newest. So what a crash costs is never more than the
    training of two such writes, and no checkpoint ever refers to a best one that is not there.

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

    def keep(self, state: RunState, *, passable: bool = False) -> None:
        """Of the model as it is now, which holds the average. Training may go on at once. One that is `passable` may be
        passed over for a later one.

        Raises:
            RunError: StorageFull, OutputUnwritable: of a checkpoint before this one.
        """
        if not self._rig.world.leads:
            return
        self.look()
        if passable and self.waiting and state.best is not None and state.best.checkpoint == self.waiting:
            return
        piece = self._piece(state)
        if passable:
            self.offer(piece)
        else:
            self.do(piece)

    def _piece(self, state: RunState) -> Piece:
        name, frozen = checkpoint_name(state.stage + 1, state.epoch, state.step), self._frozen
        copies = Snapshot.of(self._rig.model, self._changing, self._optimizer, self._average.last_step())
        return Piece(
            name,
            work=lambda: self._rig.store.write(name, copies.pack_model, copies.pack_optimizer, state, frozen),
            afterwards=lambda: self._written(state),
        )

    def _written(self, state: RunState) -> None:
        self._rig.requests.written()
        self._rig.reporter.kept(state)
