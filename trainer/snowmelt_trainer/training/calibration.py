"""How sure of itself a head is that a solver has found.

Its penalty and label smoothing leave it right and far too unsure. With its logits multiplied it gives the same answers,
and the validation loss says which factor suits them (temperature scaling, Guo et al. 2017, "On Calibration of Modern
Neural Networks"). docs/design/20261128-head-after-an-epoch.md has what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import nn

from snowmelt_trainer.backbones import changing_tensors
from snowmelt_trainer.contract.unfreezing import Target
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training.activations import ActivationCache
from snowmelt_trainer.training.checkpoint import checkpoint_name
from snowmelt_trainer.training.copies import take_copies
from snowmelt_trainer.training.features import before_head
from snowmelt_trainer.training.head_start import linear_head, scaled
from snowmelt_trainer.training.metrics import best_of, outranks
from snowmelt_trainer.training.packing import Frozen
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import Best, RunState

log = logging.getLogger(__name__)

SURER = (1.0, 2.0, 4.0)
"""How much surer of itself a solved head is tried. Powers of two round nothing in any precision, so all give the same
answers, and the validation loss decides."""


def surer(head: nn.Linear) -> list[nn.Linear]:
    """The head, and as it is when it is surer of itself."""
    return [scaled(head, factor) for factor in SURER]


def calibrate(rig: Rig, state: RunState, cache: ActivationCache | None, *, to_meet: Target | None = None) -> RunState:
    """When no stage follows: where the best weights, which the model holds, have a solver's head, it is delivered as
    sure of itself as the validation images bear out, from a checkpoint of its own. Not before, since a stage that goes
    on from such a head moves less from one that is less sure; but with `to_meet`, where that makes it meet this target,
    so that no stage need follow. All workers find the same.

    `cache` is the last stage's, if it had one: what it holds need not be computed again.

    Raises:
        RunError: StorageFull, OutputUnwritable; or as `evaluate` does.
    """
    best, name = state.best, checkpoint_name(state.stage + 1, 0, 0)
    solved = {row.index for row in state.rows if row.solved}
    if best is None or best.stage not in solved or best.checkpoint == name:
        return state
    cut = before_head(rig)
    head = linear_head(cut)
    if head is None or cut.prefix is None:
        return state
    before: nn.Module = cut.prefix
    batches: Iterable[Batch] = rig.validation
    if cache is not None and best.stage == state.rows[-1].index:
        before, batches = nn.Identity(), cache.validation()
    rig.model.eval()
    heads = surer(head)
    found = [counts.values for counts in rig.compare(before, heads, batches)]
    chosen = best_of(rig.metric, found)
    if not outranks(rig.metric, found[chosen], best.values):
        return state
    if to_meet is not None and not to_meet.met_by(found[chosen][rig.metric]):
        return state
    log.info("the head is delivered %g times as sure of itself as the solver left it", SURER[chosen])
    head.load_state_dict(heads[chosen].state_dict())
    calibrated = Best(checkpoint=name, stage=best.stage, epoch=best.epoch, values=found[chosen])
    state = state.model_copy(update={"best": calibrated})
    if rig.world.leads:
        changing = changing_tensors(rig.model, rig.groups, rig.plan[best.stage - 1].trainable)
        copies = take_copies(rig.model, changing)
        rig.store.write(name, copies.pack_model, b"", state, Frozen.of(rig.model, changing))
        rig.reporter.report(state, finished=True)
    return state
