"""The head by a solver: multinomial logistic regression on the frozen layers' output.

The network before a linear head is a fixed function, so the best head is the solution of a convex problem. L-BFGS
(Liu and Nocedal 1989, as torch.optim has it) finds it in some dozens of passes over the features, in which each worker
has its own share, and the loss and its gradient are summed over all of them. The weights are penalised as they act on
whitened features (see `whitening`). The penalty is weakened and the whitening strengthened from epoch to epoch, each
solution being the next one's start; validation says which is best, as it says elsewhere which epoch is.
docs/design/20261125-head-start.md and 20261128-whitened-head.md have what was measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snowmelt_trainer.backbones import Cut
from snowmelt_trainer.contract.optimization import HeadStart
from snowmelt_trainer.training.activations import ActivationCache, free_memory
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.standardised import MOST_HELD, Rows, StandardisedFeatures, held_bytes
from snowmelt_trainer.training.state import RunState
from snowmelt_trainer.training.whitening import Coordinates, whitening, within_class

MOST_ITERATIONS = 50
"""In one epoch: the next goes on from there."""
FIRST_PENALTY, WEAKENING = 1.0, 10**-0.5
"""Twice the penalty's factor before the squared weights, per image, in the first epoch, and from one to the next."""
FIRST_SHRINKAGE, LESS = 0.4, 0.4
"""Of the features' covariance within the classes, as `whitening` takes it, in the first epoch, and from one to the
next."""
PLAIN = 0.1
"""Of the penalty, where it is on the weights of standardised features. By the strengths that were best both ways."""
MOST_WORK = 2 * 10**9
"""Images times features times classes up to which Auto takes the solver: some tens of seconds an epoch on one core.
Larger ones were not measured."""
MEMORY_SHARE = 0.5
"""Of what is free, how much the features may take."""
MATRICES = 5
"""With a row and a column for each feature, at most, while the solver makes them."""


def linear_head(cut: Cut) -> nn.Linear | None:
    """The suffix's linear layer, where the suffix is nothing else (but for dropout before it)."""
    if cut.prefix is None or not isinstance(cut.suffix, fx.GraphModule):
        return None
    layers = []
    for node in cut.suffix.graph.nodes:
        if node.op == "call_module":
            layers.append(cut.suffix.get_submodule(str(node.target)))
        elif node.op not in ("placeholder", "output"):
            return None
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    rest = [layer for layer in layers if not isinstance(layer, nn.Linear | nn.Dropout | nn.Identity)]
    return linear[0] if len(linear) == 1 and not rest else None


def solvable(rig: Rig, cut: Cut, state: RunState) -> bool:
    """Whether the stage's head is to be found by a solver; all workers decide alike, and an attempt that resumes as the
    one before. Where it was asked for and cannot be, a warning in status says why."""
    stage = rig.plan[state.stage]
    if state.solved is not None or not stage.solved:
        return bool(state.solved)
    asked = rig.config.optimization.head_start is HeadStart.SOLVER
    reason = _obstacle(rig, cut, asked)
    if rig.world.minimum(int(not reason)):
        return True
    if asked:
        rig.reporter.warn(f"ordinary epochs: {reason or 'another worker has no room'}", stage)
    return False


def _obstacle(rig: Rig, cut: Cut, asked: bool) -> str:
    head = linear_head(cut)
    if head is None:
        return "the head is more than one linear layer, so no solver can find it"
    if not asked and rig.samples * head.in_features * rig.classes > MOST_WORK:
        return "the solver's work has not been measured at this size"
    width = head.in_features
    features = min(held_bytes(-(-rig.samples // rig.world.size), width), room_for(rig))
    needed = features + held_bytes(MATRICES * width, width)
    if rig.world.device.type == "cpu" and needed > MEMORY_SHARE * free_memory():
        return f"the solver takes {needed:,} bytes, more than may be used"
    return ""


def room_for(rig: Rig, kept: int = 0) -> int:
    """Bytes of features that the solver may hold a copy of: what `cache.maxBytes` leaves beside those `kept`. Nothing
    that is free just now counts, so that an attempt that resumes rounds as the one before."""
    bound = rig.config.optimization.cache.max_bytes
    return MOST_HELD if bound is None else max(0, min(MOST_HELD, bound - kept))


def solver_of(rig: Rig, head: nn.Linear, rows: Rows, samples: int, state: Callable[[], RunState]) -> HeadSolver:
    """Over so many training images, all workers' together; status goes on showing the `state` meanwhile."""
    return HeadSolver(
        head,
        rows,
        rig.world,
        samples=samples,
        label_smoothing=rig.config.optimization.regularization.label_smoothing,
        room=room_for(rig, rows.planned_bytes if isinstance(rows, ActivationCache) else 0),
        tick=(lambda: rig.reporter.tick(state())) if rig.world.leads else (lambda: None),
    )


@torch.no_grad()
def forget(head: nn.Linear) -> None:
    """Makes it a head that knows nothing: every class is as likely as any other."""
    for parameter in head.parameters():
        parameter.zero_()


@torch.no_grad()
def scaled(head: nn.Linear, factor: float) -> nn.Linear:
    """A copy that gives the same answers, and is so many times as sure of them: its logits are multiplied."""
    other = copy.deepcopy(head)
    for parameter in other.parameters():
        parameter.mul_(factor)
    return other


class HeadSolver:
    """Finds a linear head, one strength of the penalty an epoch. A function of the features, the head's present
    weights and the epoch, so a run that resumes finds the same."""

    def __init__(
        self,
        head: nn.Linear,
        rows: Rows,
        world: World,
        *,
        samples: int,
        label_smoothing: float,
        tick: Callable[[], None],
        room: int = MOST_HELD,
    ) -> None:
        """`samples` are all workers' training images; `tick` is called now and then; `room` as
        `StandardisedFeatures` takes it."""
        self.head, self.rows, self.world, self.samples = head, rows, world, samples
        self.label_smoothing, self.tick, self.room = label_smoothing, tick, room

    def solve(self, epoch: int) -> float:
        """Sets the head's weights to the epoch's (from 0) solution; gives the sum over all workers' images of the
        cross-entropy.

        Raises:
            RunError: as the cache does, where features have to be computed.
        """
        white = whitening(self._covariance, FIRST_SHRINKAGE * LESS**epoch)
        return self._minimise(white, FIRST_PENALTY * WEAKENING**epoch)

    def solve_plainly(self, epoch: int) -> float:
        """The same, with weights of standardised features penalised about as much. Such a head is not as good, and more
        so when its features change: it leans on no directions in which they hardly vary.

        Raises:
            RunError: as `solve`.
        """
        return self._minimise(Coordinates(), PLAIN * FIRST_PENALTY * WEAKENING**epoch)

    def _minimise(self, coordinates: Coordinates, penalty: float) -> float:
        start = self._start(coordinates)
        weights = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weights],
            max_iter=MOST_ITERATIONS,
            tolerance_grad=1e-6,
            tolerance_change=1e-11,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            self.tick()
            total, gradient = self._loss(coordinates, weights.detach())
            bare = weights.detach().clone()
            bare[:, -1] = 0.0  # the bias is not penalised
            weights.grad = gradient / self.samples + penalty * bare
            return total / self.samples + penalty / 2 * bare.square().sum()

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        self._set(coordinates, weights.detach())
        return float(self._loss(coordinates, weights.detach())[0])

    def _loss(self, coordinates: Coordinates, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over all workers' images of the cross-entropy, and its gradient; float64, the same on all. Features
        in other coordinates are never made: few classes' weights take less work."""
        local = weights.float()
        plain = coordinates.plain(local[:, :-1])
        total = torch.zeros((), dtype=torch.float64, device=weights.device)
        by_plain, by_bias = torch.zeros_like(plain), torch.zeros_like(local[:, -1])
        for features, labels in self._features.blocks():
            logits = torch.addmm(local[:, -1], features, plain.t()).requires_grad_()
            with torch.enable_grad():
                loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.label_smoothing)
            (of_logits,) = torch.autograd.grad(loss, [logits])
            # Autograd would multiply the features' transpose by this, which processors take nine times as long for.
            by_plain += of_logits.t() @ features
            by_bias += of_logits.sum(0)
            total += loss.detach()
        gradient = torch.cat([coordinates.gradient(by_plain), by_bias.unsqueeze(1)], dim=1)
        summed = self.world.sum(torch.cat([gradient.double().flatten(), total.reshape(1)]))
        return summed[-1], summed[:-1].view_as(weights)

    @cached_property
    def _covariance(self) -> Tensor:
        return within_class(self._features.blocks, self.head.in_features, self.head.out_features, self.world)

    @cached_property
    def _features(self) -> StandardisedFeatures:
        return StandardisedFeatures(self.rows, self.head.in_features, self.world, samples=self.samples, room=self.room)

    def _start(self, coordinates: Coordinates) -> Tensor:
        """The head's weights and bias for features in these, (classes, d + 1) float64, the leading worker's."""
        found = self._features
        weight = self.head.weight.detach().double()
        bias = torch.zeros_like(weight[:, 0]) if self.head.bias is None else self.head.bias.detach().double()
        there = coordinates.of_plain(weight * found.deviation)
        return self._of_leader(torch.cat([there, (bias + weight @ found.mean).unsqueeze(1)], dim=1))

    def _set(self, coordinates: Coordinates, weights: Tensor) -> None:
        found = self._features
        weight = self._of_leader(coordinates.plain(weights[:, :-1])) / found.deviation
        with torch.no_grad():
            self.head.weight.copy_(weight)
            if self.head.bias is not None:
                self.head.bias.copy_(weights[:, -1] - weight @ found.mean)

    def _of_leader(self, value: Tensor) -> Tensor:
        """Whitening is rounded differently on different processors, and all workers are to go on from the same."""
        return self.world.sum(value.clone() if self.world.leads else torch.zeros_like(value))
