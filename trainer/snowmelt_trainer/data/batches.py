"""Which samples are in which step, on which worker: pure functions of their arguments.

Every epoch visits each sample exactly once. The epoch's steps are made equally long (they differ by one sample at
most) and are never longer than the global batch, so that no step is left with a handful of samples, or a worker with
none, as long as there are as many samples in a step as workers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
_PURPOSE = 2
"""Keeps this stream of random numbers apart from those of `splits` and `transforms`, which share the seed."""


MOST_IN_A_STEP, FEWEST_IN_A_STEP, STEPS = 256, 32, 12
"""The bounds of an automatic batch, and the steps an epoch that it leaves: a stage of few epochs over few images would
otherwise end before its rate has risen and fallen."""


def automatic_batch(samples: int, workers: int) -> int:
    """The number of images in a step where the spec gives none: a power of two within the bounds, and of at least
    eight images for each of the most `workers` there can be.

    >>> automatic_batch(1250, 1), automatic_batch(60_000, 4), automatic_batch(100, 2)
    (64, 256, 32)
    """
    batch = MOST_IN_A_STEP
    while batch > FEWEST_IN_A_STEP and samples < STEPS * batch:
        batch //= 2
    return max(batch, 8 * workers)


def epoch_order(samples: int, *, seed: int, stage: int, epoch: int) -> Ids:
    """The order in which an epoch visits the samples: a permutation, the same for any number of workers."""
    return np.random.default_rng((_PURPOSE, seed, stage, epoch)).permutation(samples)


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Optimizer steps in one epoch: the fewest in which no step exceeds the global batch."""
    return -(-samples // global_batch)


def global_step(order: Ids, step: int, global_batch: int) -> Ids:
    """The samples of one step over all workers; the step's loss is the mean over these.

    Raises:
        IndexError: when the epoch has no such step.
    """
    steps = steps_per_epoch(len(order), global_batch)
    if not 0 <= step < steps:
        raise IndexError(f"step {step} of an epoch of {steps}")
    return order[step * len(order) // steps : (step + 1) * len(order) // steps]


def parts(ids: Ids, most: int) -> tuple[Ids, ...]:
    """All of them, in their order, divided as an epoch is into steps of `most` at most; none where there are none."""
    return tuple(global_step(ids, step, most) for step in range(steps_per_epoch(len(ids), most)))


def shard(order: Ids, step: int, global_batch: int, rank: int, world: int) -> Ids:
    """The part of a step that worker `rank` of `world` computes; parts differ by at most one sample."""
    return global_step(order, step, global_batch)[rank::world]


def owners(ids: Ids, world: int) -> Ids:
    """The worker that keeps each sample's activations: a function of the sample alone, whatever step it is in."""
    owner: Ids = ids % world
    return owner


def owned_shard(order: Ids, step: int, global_batch: int, rank: int, world: int, *, at_least: int) -> Ids:
    """The part of a step that worker `rank` computes when each sample goes to the worker that owns it.

    The step's samples over all workers are those of `shard`, and one worker's are in the same order; parts differ by
    chance. A worker left with fewer than `at_least` is given others' samples, from the worker that has the most, as
    far as there are enough.
    """
    ids = global_step(order, step, global_batch)
    if world == 1:
        return ids
    given = owners(ids, world)
    counts = np.bincount(given, minlength=world)
    while counts.min() < min(at_least, len(ids) // world):
        poor, rich = int(counts.argmin()), int(counts.argmax())
        given[np.flatnonzero(given == rich)[-1]] = poor
        counts[poor] += 1
        counts[rich] -= 1
    share: Ids = ids[given == rank]
    return share


def evaluation_shard(samples: int, rank: int, world: int) -> range:
    """The samples that worker `rank` evaluates. Nothing is padded: over all workers, each sample is there once."""
    return range(rank, samples, world)
