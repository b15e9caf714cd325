"""What is made anew before everything is trained, so that the first epochs do not lose what the head has reached; and
the head after such epochs, so that they show what the layers beneath it have learned.

A head fits features that were normalised by what was counted before. A stage that normalises by its batches would begin
with a network that its head does not fit: so it begins with the statistics that it will have, and with a head that was
solved for them.

And a solved head is sure of itself: its weights are large, so every small change of a feature is a large one of its
logits, and the first steps of the layers beneath undo more than they learn. With smaller weights it gives the same
answers, and the steps do not. docs/design/20261127-before-everything.md has what was measured.

While the rate is high, the layers beneath the head learn faster than it can follow: a head that is found for what they
give after an epoch is better than the one that was trained, of a ResNet by as much as the next will gain. So it is
found once more, in the weights' average, which is what is evaluated and kept; training goes on from its own.
docs/design/20261128-head-after-an-epoch.md has what was measured.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training.calibration import surer
from snowmelt_trainer.training.features import UnkeptFeatures, before_head, some_of
from snowmelt_trainer.training.head_start import forget, linear_head, scaled, solver_of
from snowmelt_trainer.training.metrics import Counts, best_of
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState
from snowmelt_trainer.training.statistics import IMAGES, count_anew

log = logging.getLogger(__name__)

IMAGES_OF_A_CLASS = 100
"""On average, of those that a head is found again on: it is where training sets out from, and more gave the same."""
SOFTENED = 0.2
"""Of a solved head's logits, what is left of them where all layers beneath it are to be trained. Solved ones have a
standard deviation of 1.5, whatever the network and the images; half of this was as good, twice as much less so."""


def renew(rig: Rig, state: RunState) -> RunState:
    """Before a stage that normalises by its batches, where the one before did not: the statistics are counted anew, and
    a head that a solver has found is found again, plainly, at the strength that was best, and softened. A head that
    was trained since stays where it fits.

    All workers have the same ones, and an attempt that resumes here as the one before. Gives the state with the seconds
    that it took.

    Raises:
        RunError: as `ImageDataset.square` does.
    """
    if state.epoch or state.step or not rig.begins_to_adapt(state.stage):
        return state
    started = rig.clock()
    some = some_of(rig, rig.train, images_to_renew(rig.classes))
    counted = count_anew(rig, some.first(IMAGES))
    cut, strength = before_head(rig), _best_strength(state, rig.metric)
    head = linear_head(cut)
    if head is not None and strength is not None and (counted.changed or state.rows[-1].solved):
        rows = _Rows(counted.features, UnkeptFeatures(some.beyond(counted.images).share(), cut))
        forget(head)  # for these features it may be so wrong that the solver would not come back
        solver_of(rig, head, rows, len(some.ids), lambda: state).solve_plainly(strength)
        head.load_state_dict(scaled(head, SOFTENED).state_dict())
    spent = rig.clock() - started
    log.info("BatchNorm's statistics and the head were made to fit each other in %.1f s", spent)
    return state.model_copy(update={"stage_seconds": state.stage_seconds + spent})


def refit(rig: Rig, state: RunState) -> Counts | None:
    """Gives the model, where a solver has found its first head, the head that fits it as it is now, unless its own does
    better: of all workers the same, and what the evaluation found. It is solved at the strongest penalty: classes that
    were trained lie far apart. That leaves it too unsure of itself, so it is looked at when it is surer, too.

    Raises:
        RunError: as `ImageDataset.square` and `evaluate` do.
    """
    if not any(row.solved for row in state.rows):
        return None
    rig.model.eval()
    cut = before_head(rig)
    head = linear_head(cut)
    if head is None or cut.prefix is None:
        return None
    trained = copy.deepcopy(head)
    some = some_of(rig, rig.train, images_to_refit(rig.classes, head.in_features))
    forget(head)
    solver_of(rig, head, UnkeptFeatures(some.share(), cut), len(some.ids), lambda: state).solve(0)
    heads = [trained, *surer(head)]
    found = rig.compare(cut.prefix, heads, rig.validation)
    best = best_of(rig.metric, [counts.values for counts in found])
    head.load_state_dict(heads[best].state_dict())
    return found[best]


def images_to_renew(classes: int) -> int:
    """At most, of those that a head is found again on.

    >>> images_to_renew(10)
    1000
    """
    return max(IMAGES, IMAGES_OF_A_CLASS * classes)


def images_to_refit(classes: int, features: int) -> int:
    """The same after an epoch. As many as the head has features: 512 images were too few for 2,048.

    >>> images_to_refit(10, 2048)
    2048
    """
    return max(images_to_renew(classes), features)


@dataclass(frozen=True)
class _Rows:
    """This worker's features: those that were seen while the statistics were counted, and more."""

    seen: tuple[Batch, ...]
    more: UnkeptFeatures

    def whole(self) -> Iterator[Batch]:
        """What a solver reads. Raises as `SomeImages.batches`."""
        yield from self.seen
        yield from self.more.whole()

    @property
    def owned(self) -> int:
        return sum(len(labels) for _, labels, _ in self.seen) + self.more.owned


def _best_strength(state: RunState, metric: Metric) -> int | None:
    """The penalty's strength, as `HeadSolver` counts them, of a solver's best head; none where there was no solver."""
    solved = {row.index for row in state.rows if row.solved}
    epochs = [epoch for epoch in state.history if epoch.stage in solved]
    return epochs[best_of(metric, [epoch.validation for epoch in epochs])].epoch - 1 if epochs else None
