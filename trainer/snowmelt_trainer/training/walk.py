"""From stage to stage: train, evaluate, stop when the target is met, unfreeze more when it is not."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.activations import ActivationCache
from snowmelt_trainer.training.allocation import give_back_freed_memory
from snowmelt_trainer.training.calibration import calibrate
from snowmelt_trainer.training.checkpoint import best_is_gone
from snowmelt_trainer.training.distributed import agreed_digests
from snowmelt_trainer.training.packing import unpack_model
from snowmelt_trainer.training.renewal import renew
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import Best, RunState, close_stage
from snowmelt_trainer.training.statistics import adapt_statistics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Walked:
    """How the stages ended. The model holds the best weights, which lie in the checkpoint `best.checkpoint`."""

    reason: Reason
    """TargetMet or StagesCompleted."""
    state: RunState
    best: Best


def walk(rig: Rig) -> Walked:
    """Trains the stages that are still to be trained, each from the best weights so far.

    Raises:
        RunError: InvalidConfig when the checkpoints belong to another configuration; Diverged; StorageFull;
            OutputUnwritable.
    """
    state, optimizer = _resume(rig)
    if state == RunState(fingerprint=rig.fingerprint):
        adapt_statistics(rig)
    cache: ActivationCache | None = None
    while not _is_over(rig, state):
        stage = rig.plan[state.stage]
        if state.ended is None and rig.world.leads:
            rig.reporter.report(state)
        state = renew(rig, state)
        if rig.world.size > 1:
            agreed_digests(rig.model, rig.world, f"before stage {state.stage + 1} ({stage.name})")
        if state.ended is None:
            log.info(
                "stage %d/%d %s: training %s", state.stage + 1, len(rig.plan), stage.name, ", ".join(stage.trainable)
            )
            give_back_freed_memory()  # of reading weights
            training = StageTraining(rig, state, optimizer, cache)
            optimizer = b""  # of a checkpoint, and larger than the network
            state, cache = training.run(), training.cache
            del training  # with its optimizer and average, before the best weights are read
            give_back_freed_memory()  # which would not lie in one piece
        state = close_stage(state, name=stage.name, trainable_parameters=stage.trainable_parameters)
        _restore_best(rig, state)
        state = _surer_if_good_enough(rig, state, cache)
    if rig.world.leads:
        rig.reporter.report(state, finished=True)
    state = calibrate(rig, state, cache)
    if cache is not None:
        cache.close()
    if state.best is None:
        raise RunError(Reason.INTERNAL_ERROR, "the plan has no stages")
    reason = Reason.TARGET_MET if _target_is_met(rig, state) else Reason.STAGES_COMPLETED
    return Walked(reason, state, state.best)


def _is_over(rig: Rig, state: RunState) -> bool:
    """Whether no stage is under way, to be closed, or to follow."""
    return state.ended is None and (state.stage == len(rig.plan) or _target_is_met(rig, state))


def _target_is_met(rig: Rig, state: RunState) -> bool:
    """By the best weights so far: a stage ends with the first that meet it."""
    target, best = rig.config.unfreezing.target, state.best
    return target is not None and best is not None and target.met_by(best.values[rig.metric])


def _surer_if_good_enough(rig: Rig, state: RunState, cache: ActivationCache | None) -> RunState:
    """Where a target of the loss is missed by a head that is merely too unsure of itself, no stage need follow."""
    target = rig.config.unfreezing.target
    if target is None or target.metric is not Metric.LOSS or _is_over(rig, state):
        return state
    return calibrate(rig, state, cache, to_meet=target)


def _resume(rig: Rig) -> tuple[RunState, bytes]:
    """The state to go on from and the optimizer's, with the checkpoint's weights in the model; a new state when there
    is no checkpoint.

    The leading worker reads, and sends to the others, so that only it needs to see the storage, and all decide alike.
    """
    found = rig.store.newest() if rig.world.leads else None
    text = rig.world.from_leader(found.state.model_dump_json(by_alias=True).encode() if found else b"")
    if not text:
        return RunState(fingerprint=rig.fingerprint), b""
    state = RunState.model_validate_json(text)
    if state.fingerprint != rig.fingerprint:
        raise RunError(
            Reason.INVALID_CONFIG,
            f"{rig.store.directory} holds checkpoints of another configuration of this run: "
            "remove that folder, or give the run another output.uri",
        )
    unpack_model(rig.model, rig.world.from_leader(found.model if found else b""))
    optimizer = rig.world.from_leader((found.optimizer or b"") if found else b"")
    log.info("resuming in stage %d after %d epochs and %d steps", state.stage + 1, state.epoch, state.step)
    if rig.world.leads and found:
        rig.reporter.found(state)
    return state, optimizer


def _restore_best(rig: Rig, state: RunState) -> None:
    name = state.best.checkpoint if state.best else ""
    found = rig.store.read_model(name) if rig.world.leads else None
    data = rig.world.from_leader(found or b"")
    if not data:
        raise best_is_gone(rig.store.directory / name)
    unpack_model(rig.model, data)
