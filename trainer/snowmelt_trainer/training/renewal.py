"""What is made anew before everything is trained, so that the first epochs do not lose what the head has reached.

A head fits features that were normalised by what was counted before. A stage that normalises by its batches would begin
with a network that its head does not fit: so it begins with the statistics that it will have, and with a head that was
solved for them.

And a solved head is sure of itself: its weights are large, so every small change of a feature is a large one of its
logits, and the first steps of the layers beneath undo more than they learn. With smaller weights it gives the same
answers, and the steps do not. docs/design/20261127-before-everything.md has what was measured.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import nn

from snowmelt_trainer.backbones import Cut
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.training.features import UnkeptFeatures, before_head, some_of
from snowmelt_trainer.training.head_start import forget, linear_head, soften, solver_of
from snowmelt_trainer.training.metrics import outranks
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import Epoch, RunState
from snowmelt_trainer.training.statistics import IMAGES, count_anew

log = logging.getLogger(__name__)

IMAGES_OF_A_CLASS = 100
"""On average, of those that a head is found again on: it is where training sets out from, and more gave the same."""


def renew(rig: Rig, state: RunState) -> RunState:
    """Before a stage that normalises by its batches, where the one before did not: the statistics are counted anew, and
    a head that a solver has found is found again, at the strengths that led to the best one. A head that a solver has
    just found is softened.

    All workers have the same ones, and an attempt that resumes here as the one before. Gives the state with the seconds
    that it took.

    Raises:
        RunError: as `ImageDataset` does.
    """
    if not _begins_to_adapt(rig, state):
        return state
    started = rig.clock()
    cut = before_head(rig)
    head = linear_head(cut)
    changed = count_anew(rig)
    if head is not None and (_solve_again(rig, state, cut, head) if changed else state.rows[-1].solved):
        soften(head)
    spent = rig.clock() - started
    log.info("BatchNorm's statistics and the head were made to fit each other in %.1f s", spent)
    return state.model_copy(update={"stage_seconds": state.stage_seconds + spent})


def _begins_to_adapt(rig: Rig, state: RunState) -> bool:
    if state.stage == 0 or state.epoch or state.step:
        return False
    before, stage = rig.plan[state.stage - 1 : state.stage + 1]
    return rig.adapts_statistics(stage) and not rig.adapts_statistics(before)


def _solve_again(rig: Rig, state: RunState, cut: Cut, head: nn.Linear) -> bool:
    """Finds the head that a solver has found, on each worker's share of some images; gives false where none has."""
    strengths = _strengths(state, rig.metric)
    if not strengths:
        return False
    forget(head)  # for these features it may be so wrong that the solver would not come back
    some = some_of(rig, rig.train, max(IMAGES, IMAGES_OF_A_CLASS * rig.classes))
    share = replace(some, ids=some.ids[rig.world.rank :: rig.world.size])
    solver = solver_of(rig, head, UnkeptFeatures(share, cut), len(some.ids), lambda: state)
    for strength in range(strengths):
        solver.solve(strength)
    return True


def _strengths(state: RunState, metric: Metric) -> int:
    """How many of the penalty's strengths a solver went through to its best head; 0 where there was no solver."""
    solved = {row.index for row in state.rows if row.solved}
    best: Epoch | None = None
    for epoch in state.history:
        if epoch.stage in solved and (best is None or outranks(metric, epoch.validation, best.validation)):
            best = epoch
    return best.epoch if best else 0
