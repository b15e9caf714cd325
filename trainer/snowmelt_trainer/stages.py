"""The plan of stages: which layer groups are trained in each, and how fast. Pure; a stage is a function of (plan,
index).

Learning rates. The head's is `optimization.learningRate`, or else AUTOMATIC_RATE, scaled to the batch: by its square
root for AdamW (Malladi et al. 2022, arXiv 2205.10287), linearly for SGD (Goyal et al. 2017, arXiv 1706.02677). Each
group below the head gets that of the next group towards the output times layerDecay (Howard and Ruder 2018, arXiv
1801.06146), which is LAYER_DECAY where the spec gives none; but where everything is trained, and BatchNorm's
statistics move in the first layers, too, their weights move as fast as all others. Once a stage has trained the head,
later ones start from WARM_HEAD_FACTOR of the rate, so that a good head is not undone (LP-FT, Kumar et al. 2022, arXiv
2202.10054); an automatic rate is lowered likewise in a first stage that trains the backbone, and less, to
EVERYTHING_FACTOR, in a stage that trains everything. Without BatchNorm it is WITHOUT_BATCH_NORM_FACTOR wherever the
backbone is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from snowmelt_trainer.contract.optimization import CacheMode, HeadStart, Optimization, OptimizerName
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.unfreezing import CustomStage, Order, Strategy, Unfreezing
from snowmelt_trainer.errors import RunError

REFERENCE_BATCH = 256
AUTOMATIC_RATE = {OptimizerName.ADAMW: 4e-3, OptimizerName.SGD: 1e-1}
"""The head's learning rate at REFERENCE_BATCH, where the spec gives none: for AdamW that of fastai's `fine_tune`
(2e-3 at 64
images). On the demo's digits, at 32 images, half of either did worse, and twice as much a little better."""
WARM_HEAD_FACTOR = 0.25
EVERYTHING_FACTOR = 0.5
"""The same for an automatic rate in a stage that trains everything: there is no later one to move the first layers."""
WITHOUT_BATCH_NORM_FACTOR = 1 / 16
"""The same for an automatic rate in any stage that trains layers of a backbone without BatchNorm, such as a
transformer: what nothing normalises anew by the batch bears far smaller steps.
docs/design/20261127-before-everything.md has what was measured."""
LAYER_DECAY = 0.8
EPOCHS, EPOCHS_BETWEEN, EPOCHS_OF_EVERYTHING = 6, 2, 5
"""Most epochs of a stage where the spec gives no number; of those between the first and the last of strategy Gradual,
since what such a stage leaves undone, the last one does; and of everything after the head, where one more changed
nothing that could be told from chance. docs/design/20261127-before-everything.md has what was measured."""
STAGES, STAGES_TO_EVERYTHING = 3, 2
"""Most stages of strategy Gradual where the spec gives no number; and where nothing ends the run before everything is
trained, so that a stage in between would only delay it. docs/design/20261126-two-stages.md has what was measured."""
MAX_NAME = 60


@dataclass(frozen=True)
class GroupInfo:
    """What planning needs to know of a layer group. `modules` are the modules it is made of, as the network names
    them; `batch_norm` is whether any layer of it is a BatchNorm."""

    name: str
    parameter_count: int
    modules: tuple[str, ...] = ()
    batch_norm: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage. `trainable` lists layer groups from input to output and always ends with the head; `learning_rates`
    has their peaks."""

    index: int
    """Counted from 1."""
    of: int
    name: str
    """The groups that this stage unfreezes: `layer4`, `stem..layer2`, `all`."""
    trainable: tuple[str, ...]
    learning_rates: dict[str, float] = field(hash=False)
    max_epochs: int
    trainable_parameters: int
    total_parameters: int
    solved: bool = False
    """Whether a solver is to find the head, where the network allows it."""


@dataclass(frozen=True)
class _Draft:
    """A stage before it knows its place: indices of the trained groups, and what the spec says of this stage
    alone."""

    trained: frozenset[int]
    max_epochs: int | None = None
    learning_rate: float | None = None


def plan_stages(unfreezing: Unfreezing, optimization: Optimization, groups: Sequence[GroupInfo]) -> tuple[Stage, ...]:
    """The stages in order, given the layer groups from input to output, of which the last is the head.

    Raises:
        RunError: InvalidConfig, when a custom stage names no layer group of this network.
    """
    drafts = _drafts(unfreezing, groups)
    stages = []
    before: frozenset[int] = frozenset()
    for number, draft in enumerate(drafts, start=1):
        trained = sorted(draft.trained)
        first, head_alone, everything = number == 1, len(trained) == 1, len(trained) == len(groups)
        decay = _layer_decay(optimization, groups, everything=everything)
        head_rate = draft.learning_rate or _head_rate(
            optimization,
            first=first,
            factor=_automatic_factor(groups, head_alone=head_alone, everything=everything, first=first),
        )
        stages.append(
            Stage(
                index=number,
                of=len(drafts),
                name=_name(sorted(draft.trained - before) or trained, groups),
                trainable=tuple(groups[i].name for i in trained),
                learning_rates={groups[i].name: head_rate * decay ** (len(groups) - 1 - i) for i in trained},
                max_epochs=draft.max_epochs or unfreezing.stage.max_epochs or EPOCHS,
                trainable_parameters=sum(groups[i].parameter_count for i in trained),
                total_parameters=sum(group.parameter_count for group in groups),
                solved=first and head_alone and _may_be_solved(optimization, draft),
            )
        )
        before = draft.trained
    return tuple(stages)


def _drafts(unfreezing: Unfreezing, groups: Sequence[GroupInfo]) -> list[_Draft]:
    everything = frozenset(range(len(groups)))
    head = frozenset({len(groups) - 1})
    match unfreezing.strategy:
        case Strategy.HEAD_ONLY:
            return [_Draft(head)]
        case Strategy.FULL:
            return [_Draft(everything)]
        case Strategy.LINEAR_PROBE_THEN_FINE_TUNE:
            return [_Draft(head), _Draft(everything, unfreezing.stage.max_epochs or EPOCHS_OF_EVERYTHING)]
        case Strategy.GRADUAL:
            return _gradual(len(groups), unfreezing)
        case Strategy.CUSTOM:
            return [_custom(number, stage, groups) for number, stage in enumerate(unfreezing.stages)]
        case Strategy.SURGICAL:
            raise RunError(Reason.INVALID_CONFIG, "not supported yet: spec.unfreezing.strategy Surgical")


def _gradual(num_groups: int, unfreezing: Unfreezing) -> list[_Draft]:
    """Head first; then the backbone's groups in order, in near-equal portions, the smaller ones earlier."""
    backbone = list(range(num_groups - 1))
    if unfreezing.order is not Order.INPUT_FIRST:
        backbone.reverse()
    portions = min(_most_stages(unfreezing) - 1, len(backbone))
    ends = [portion * len(backbone) // portions for portion in range(portions + 1)] if portions else [0]
    return [
        _Draft(
            frozenset({num_groups - 1, *backbone[:end]}),
            max_epochs=unfreezing.stage.max_epochs or _epochs_up_to(end, len(backbone)),
        )
        for end in ends
    ]


def _epochs_up_to(end: int, of: int) -> int:
    """Of a stage of strategy Gradual that trains the head and `end` of `of` other groups."""
    if end == 0:
        return EPOCHS
    return EPOCHS_OF_EVERYTHING if end == of else EPOCHS_BETWEEN


def _most_stages(unfreezing: Unfreezing) -> int:
    if unfreezing.max_stages is not None:
        return unfreezing.max_stages
    some_in_between = unfreezing.target is not None or unfreezing.order is Order.INPUT_FIRST
    return STAGES if some_in_between else STAGES_TO_EVERYTHING


def _custom(number: int, stage: CustomStage, groups: Sequence[GroupInfo]) -> _Draft:
    trained = {len(groups) - 1}  # a new head that is not trained would be noise
    for pattern in stage.unfreeze:
        matched = {i for i, group in enumerate(groups) if _matches(pattern, group)}
        if not matched:
            names = [group.name for group in groups]
            nearest = get_close_matches(pattern, names, n=1, cutoff=0.0)[0]
            raise RunError(
                Reason.INVALID_CONFIG,
                f"spec.unfreezing.stages[{number}].unfreeze: '{pattern}' matches no layer group; "
                f"nearest: '{nearest}'; there are: {', '.join(names)}",
            )
        trained |= matched
    return _Draft(frozenset(trained), max_epochs=stage.max_epochs, learning_rate=stage.learning_rate)


def _matches(pattern: str, group: GroupInfo) -> bool:
    return any(fnmatchcase(name, pattern) for name in (group.name, *group.modules))


def _head_rate(optimization: Optimization, *, first: bool, factor: float) -> float:
    """`factor` is what is taken of an automatic rate."""
    given = optimization.learning_rate
    if given is not None:
        return given if first else given * WARM_HEAD_FACTOR
    scale = (optimization.batch_size or REFERENCE_BATCH) / REFERENCE_BATCH
    if optimization.optimizer is OptimizerName.ADAMW:
        scale = math.sqrt(scale)
    return AUTOMATIC_RATE[optimization.optimizer] * scale * factor


def _automatic_factor(groups: Sequence[GroupInfo], *, head_alone: bool, everything: bool, first: bool) -> float:
    if head_alone:
        return 1.0 if first else WARM_HEAD_FACTOR
    if not any(group.batch_norm for group in groups):
        return WITHOUT_BATCH_NORM_FACTOR
    return EVERYTHING_FACTOR if everything else WARM_HEAD_FACTOR


def _layer_decay(optimization: Optimization, groups: Sequence[GroupInfo], *, everything: bool) -> float:
    if optimization.layer_decay is not None:
        return optimization.layer_decay
    return 1.0 if everything and any(group.batch_norm for group in groups) else LAYER_DECAY


def _may_be_solved(optimization: Optimization, draft: _Draft) -> bool:
    """Whoever gives a head's stage a learning rate of its own means ordinary epochs, unless the solver is asked for."""
    if optimization.head_start is HeadStart.AUTO:
        return optimization.cache.mode is not CacheMode.NEVER and draft.learning_rate is None
    return optimization.head_start is HeadStart.SOLVER


def _name(unfrozen: Sequence[int], groups: Sequence[GroupInfo]) -> str:
    """`all`, or the runs of neighbouring groups as `first..last`."""
    if len(unfrozen) == len(groups) > 1:
        return "all"
    runs: list[list[int]] = []
    for i in unfrozen:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    name = "+".join(
        groups[run[0]].name if len(run) == 1 else f"{groups[run[0]].name}..{groups[run[-1]].name}" for run in runs
    )
    return name if len(name) <= MAX_NAME else f"{len(unfrozen)} groups"
