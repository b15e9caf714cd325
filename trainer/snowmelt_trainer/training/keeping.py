"""Which checkpoints a stage writes, and that they are written while it goes on training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from snowmelt_trainer.backbones import changing_tensors
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.beside import Beside, Piece
from snowmelt_trainer.training.checkpoint import checkpoint_name
from snowmelt_trainer.training.copies import Copies, take_copies
from snowmelt_trainer.training.packing import Frozen
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState


@dataclass(frozen=True)
class _Best:
    """The best weights so far, which lie in no checkpoint yet."""

    state: RunState
    weights: Copies


class Keeper(Beside):
    """Writes the checkpoints of one stage, one at a time, beside training; only the leading worker's does anything.

    Where epochs are so short that writing each of them down would slow training, some are passed over (see `Beside`),
    after the stage before, too: a crash then costs their training. Of these only the weights of the best are held, and
    written together with the next checkpoint, so that none ever refers to a best one that is not there.

    Whoever asked for one hears of it when it lies in storage, and so does status: at the next step after that.
    """

    def __init__(self, rig: Rig, stage: Stage, optimizer: torch.optim.Optimizer, average: AveragedWeights) -> None:
        super().__init__(cpus=rig.config.workers.cpus, rest=rig.rest)
        self._rig, self._optimizer, self._average = rig, optimizer, average
        self._changing = changing_tensors(rig.model, rig.groups, stage.trainable)
        self._best: _Best | None = None

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
        is_best = state.best is not None and state.best.checkpoint == _name(state)
        if is_best:
            self._best = None  # what was better before is not any more
        if not passable or self.free:
            self.do(self._piece(state))
        elif is_best:
            self._best = _Best(state, self._weights())

    def _piece(self, state: RunState) -> Piece:
        """A checkpoint to go on from, or, of a stage that has ended, the weights alone; and before it the best."""
        best, self._best = self._best, None
        copies = self._weights() if state.ended else self._everything()
        pack_optimizer = b"" if state.ended else copies.pack_optimizer
        store, frozen = self._rig.store, self._frozen

        def write() -> None:
            if best is not None:
                store.write(_name(best.state), best.weights.pack_model, None, best.state, frozen)
            store.write(_name(state), copies.pack_model, pack_optimizer, state, frozen)

        return Piece(write, afterwards=lambda: self._written(state))

    def _weights(self) -> Copies:
        return take_copies(self._rig.model, self._changing)

    def _everything(self) -> Copies:
        return take_copies(self._rig.model, self._changing, self._optimizer, self._average.last_step())

    def _written(self, state: RunState) -> None:
        self._rig.requests.written()
        self._rig.reporter.kept(state)


def _name(state: RunState) -> str:
    return checkpoint_name(state.stage + 1, state.epoch, state.step)
