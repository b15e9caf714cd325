"""One stage: the frozen prefix runs forward only, the suffix is trained, every epoch is evaluated and kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from snowmelt_trainer.backbones import Cut, parameter_groups, set_stage, split_at, train_mode
from snowmelt_trainer.contract.progress import CacheStatus
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.activations import Account, ActivationCache, combined, open_cache
from snowmelt_trainer.training.averaging import AveragedWeights, better_narrow, chosen_decay, match_statistics
from snowmelt_trainer.training.checkpoint import checkpoint_name
from snowmelt_trainer.training.compiling import Compilable
from snowmelt_trainer.training.distributed import agreed_digests, average_buffers
from snowmelt_trainer.training.head_start import HeadSolver, linear_head, solvable, solver_of
from snowmelt_trainer.training.keeping import Keeper
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.optimizers import build_optimizer, is_high, rate_factor, set_rate
from snowmelt_trainer.training.packing import unpack_optimizer
from snowmelt_trainer.training.precision import autocast, place
from snowmelt_trainer.training.renewal import refit
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.seeding import seed_dropout
from snowmelt_trainer.training.state import Epoch, RunState, after_epoch, per_second
from snowmelt_trainer.training.updates import updates_of

log = logging.getLogger(__name__)

CHECK_EVERY_STEPS = 100
"""How often the loss is looked at between the ends of epochs, to end a diverged run early; each look waits for the
device once."""


class StageTraining:
    """Trains one stage, from its beginning or from a checkpoint within it.

    The network is cut where the first trained group begins, and DistributedDataParallel is built anew around the suffix
    alone: it decides at construction which parameters it synchronises, and would let workers drift apart silently if
    some were unfrozen later.
    """

    def __init__(
        self, rig: Rig, state: RunState, optimizer_state: bytes, previous: ActivationCache | None = None
    ) -> None:
        """`previous` is the cache of the stage before, which this stage uses where it can, and closes."""
        self.rig, self.state = rig, state
        self.stage = rig.plan[state.stage]
        optimization = rig.config.optimization
        self.adapts = rig.adapts_statistics(self.stage)
        set_stage(rig.model, rig.groups, self.stage.trainable, statistics=self.adapts)
        first = min(index for index, group in enumerate(rig.groups) if group.name in self.stage.trainable)
        cut = split_at(rig.model, rig.groups, first)
        if cut.reason:
            rig.reporter.warn(f"stage {self.stage.index}: {cut.reason}, so its frozen layers run with the trained ones")
        self._open_cache(cut, previous)
        self.optimizer = build_optimizer(
            optimization.optimizer,
            parameter_groups(rig.model, rig.groups, self.stage, optimization.regularization.weight_decay),
            rig.world.device,
        )
        self.average = self._averaged()
        if optimizer_state:
            self.average.resume(unpack_optimizer(self.optimizer, optimizer_state))
        self.layers, self._to_compile = Compilable(cut.suffix, rig.world), False
        self.updates = updates_of(self.optimizer, self.layers, self.average, rig.precision, rig.world)
        self.sizes = [rig.images_in(step) for step in range(rig.train.steps)]
        self.schedule = optimization.schedule
        self.total_steps = self.stage.max_epochs * rig.train.steps
        self.loss = torch.zeros((), dtype=torch.float64, device=rig.world.device)
        self.keeper = Keeper(rig, self.stage, self.optimizer, self.average)

    def _open_cache(self, cut: Cut, previous: ActivationCache | None) -> None:
        rig = self.rig
        self.cut, self.before = cut, self.state.cache or CacheStatus()
        solved = solvable(rig, cut, self.state)
        self.cache, status = open_cache(rig, cut, self.state.stage, self.state.cache, previous, plain=solved)
        if solved and self.cache is None:
            rig.reporter.warn(f"ordinary epochs: {status and status.reason}", self.stage)
            solved = False
            self.cache, status = open_cache(rig, cut, self.state.stage, None, None)
        self.state = self.state.model_copy(update={"cache": status, "solved": solved})
        self.solver = self._solver()
        norms = (one for one in cut.suffix.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm))
        self.fewest = 2 if any(norm.training for norm in norms) else 1  # statistics over a single image are none
        if self.cache is not None and rig.world.leads:
            self.cache.tick = lambda: rig.reporter.tick(self.state)

    def _solver(self) -> HeadSolver | None:
        head = linear_head(self.cut)
        if not self.state.solved or self.cache is None or head is None:
            return None
        return solver_of(self.rig, head, self.cache, self.rig.samples, lambda: self.state)

    def _averaged(self) -> AveragedWeights:
        """A solved head is no walk about a minimum: there is nothing to average."""
        rig = self.rig
        decay = chosen_decay(rig.config.optimization.regularization.ema, rig.train.steps)
        if self.adapts:
            match_statistics(rig.model, decay)
        trained = {name: one for name, one in rig.model.named_parameters() if one.requires_grad}
        return AveragedWeights(
            trained, 0.0 if self.solver else decay, narrow=better_narrow(trained.values(), rig.world)
        )

    def run(self) -> RunState:
        """Trains until the stage ends.

        Raises:
            RunError: Diverged, on every worker; StorageFull or OutputUnwritable, on the leading one.
        """
        with self.keeper:
            while self.state.ended is None:
                self.epoch()
        if self.cache is not None:
            self.cache.tick = lambda: None  # it outlives this stage's training, and would keep its optimizer alive
        self.solver = None  # which knows this training, too, and holds a copy of the features
        return self.state

    def epoch(self) -> None:
        """Trains what is left of the epoch that is under way, evaluates, and keeps a checkpoint. Raises as `run`."""
        if self.solver is None:
            self._train_epoch()
        else:
            self._solve_epoch(self.solver)
        self._finish_epoch()

    def _solve_epoch(self, solver: HeadSolver) -> None:
        self._timed_from = self.rig.clock()
        self.rig.reporter.pace.restart()
        loss = solver.solve(self.state.epoch)
        self.loss.fill_(loss if self.rig.world.leads else 0.0)
        self._count(self.rig.train.steps, self.rig.samples)

    def _train_epoch(self) -> None:
        rig, state = self.rig, self.state
        train_mode(rig.model, rig.groups, self.stage.trainable, statistics=self.adapts)
        self.loss.fill_(state.loss_sum if rig.world.leads else 0.0)
        every = rig.config.optimization.checkpoint_every_steps
        self._to_compile = self.layers.begin_epoch(self.total_steps - state.epoch * rig.train.steps - state.step)
        self._timed_from = rig.clock()
        rig.reporter.pace.restart()
        for step, batch in enumerate(self._batches(), start=state.step):
            self._step(step, batch)
            done = step + 1
            self._count(done, self.sizes[step])
            if done == rig.train.steps:
                break
            planned = every is not None and (state.epoch * rig.train.steps + done) % every == 0
            if rig.requests.due() or planned:
                self._checkpoint_within_epoch()
            elif done % CHECK_EVERY_STEPS == 0:
                self._loss_sum()

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch: features where they are kept, else images."""
        state = self.state
        if self.cache is None:
            return self.rig.train.epoch(state.stage, state.epoch, start_step=state.step)
        return self.cache.epoch(state.stage, state.epoch, start_step=state.step, at_least=self.fewest)

    def _evaluate(self) -> Counts:
        rig, cache = self.rig, self.cache
        model, batches = (rig.model, rig.validation) if cache is None else (self.cut.suffix, cache.validation())
        return rig.evaluate(model, batches)

    def _step(self, step: int, batch: Batch) -> None:
        rig, state = self.rig, self.state
        device, optimization = rig.world.device, rig.config.optimization
        inputs = place(batch[0], device, rig.preprocessing)
        labels = batch[1].to(device, non_blocking=True)
        seed_dropout(optimization.seed, state.stage, state.epoch, step, rig.world.rank)
        set_rate(self.optimizer, rate_factor(self.schedule, state.epoch * rig.train.steps + step, self.total_steps))
        with autocast(rig.precision, device), self.updates.forward():
            features = self.cut.features(inputs) if self.cache is None else inputs
            self._compile_if_due(features)
            logits = self.updates.network(features)
        loss = functional.cross_entropy(
            logits.float(), labels, reduction="sum", label_smoothing=optimization.regularization.label_smoothing
        )
        self.updates.step(loss * (1 / self.sizes[step]))  # over all workers, the mean over the global batch
        self.loss += loss.detach()

    def _compile_if_due(self, features: Tensor) -> None:
        due, self._to_compile = self._to_compile, False
        failed = self.layers.compile_for(features) if due else ""
        if failed:
            self.rig.reporter.warn(f"its layers are not compiled: {failed}", self.stage)

    def _count(self, steps: int, samples: int) -> None:
        now = self.rig.clock()
        spent = now - self._timed_from
        self._timed_from = now
        self.state = self.state.model_copy(
            update={
                "step": steps,
                "samples": self.state.samples + samples,
                "stage_seconds": self.state.stage_seconds + spent,
                "train_seconds": self.state.train_seconds + spent,
            }
        )
        if self.rig.world.leads:
            self.rig.reporter.step(self.state, self.state.samples)
            self.keeper.look()

    def _loss_sum(self) -> float:
        """The sum of the epoch's losses so far over all workers; waits for the device.

        Raises:
            RunError: Diverged, on every worker.
        """
        total = float(self.rig.world.sum(self.loss.clone()).item())
        if not math.isfinite(total):
            state = self.state
            raise RunError(
                Reason.DIVERGED,
                f"the training loss became NaN or infinite in stage {state.stage + 1} ({self.stage.name}), "
                f"epoch {state.epoch + 1}, by step {state.step}: lower spec.optimization.learningRate",
            )
        return total

    def _checkpoint_within_epoch(self) -> None:
        total = self._loss_sum()
        average_buffers(self.rig.model, self.rig.world)
        with self.average.in_place():
            self.keeper.keep(self.state.model_copy(update={"loss_sum": total}))

    def _finish_epoch(self) -> None:
        total = self._loss_sum()
        self.layers.end_epoch()
        average_buffers(self.rig.model, self.rig.world)
        with self.average.in_place():
            behind = self.adapts and self.average.decay > 0 and self._rate_is_high
            refitted = refit(self.rig, self.state) if behind else None
            self._conclude_epoch(total, refitted or self._evaluate())

    @property
    def _rate_is_high(self) -> bool:
        """At the end of the epoch under way."""
        return is_high(self.schedule, (self.state.epoch + 1) * self.rig.train.steps, self.total_steps)

    def _conclude_epoch(self, total: float, counts: Counts) -> None:
        rig, stage = self.rig, self.stage
        now = rig.clock()
        spent, self._timed_from = now - self._timed_from, now
        before = self.state.model_copy(update={"stage_seconds": self.state.stage_seconds + spent})
        name = checkpoint_name(before.stage + 1, before.epoch + 1, 0)
        unfreezing = rig.config.unfreezing
        state = after_epoch(
            before,
            counts,
            limits=unfreezing.stage,
            max_epochs=stage.max_epochs,
            target=unfreezing.target,
            checkpoint=name,
            rate_is_high=self.solver is None and self._rate_is_high,
        )
        record = Epoch(
            stage=state.stage + 1,
            name=stage.name,
            epoch=state.epoch,
            step=state.epoch * rig.train.steps,
            train_loss=total / rig.samples,
            validation=counts.values,
            seconds=round(state.stage_seconds, 3),
            samples_per_second=per_second(state.samples, state.train_seconds),
            workers=rig.world.size,
            ended=state.ended,
            weights=agreed_digests(rig.model, rig.world, f"after stage {state.stage + 1} ({stage.name})")
            if state.ended
            else (),
        )
        self.state = state.model_copy(
            update={"history": (*state.history, record), "cache": self._cache_status(ended=state.ended is not None)}
        )
        if rig.world.leads:
            rig.reporter.report(self.state)
        self.keeper.keep(self.state, passable=state.ended is None)

    def _cache_status(self, *, ended: bool) -> CacheStatus | None:
        """What the cache has cost and saved so far; the workers tell each other, and status what went wrong."""
        if self.cache is None or self.state.cache is None:
            return self.state.cache
        if ended:
            self.cache.verify()
        workers = [Account.model_validate_json(text) for text in self.rig.world.gather(self.cache.told())]
        for note in dict.fromkeys(note for worker in workers for note in worker.notes):
            self.rig.reporter.warn(note, self.stage)
        return combined(self.state.cache, self.before, workers)
