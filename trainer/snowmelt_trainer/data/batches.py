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


def shard(order: Ids, step: int, global_batch: int, rank: int, world: int) -> Ids:
    """The part of a step that worker `rank` of `world` computes; parts differ by at most one sample."""
    return global_step(order, step, global_batch)[rank::world]


def evaluation_shard(samples: int, rank: int, world: int) -> range:
    """The samples that worker `rank` evaluates. Nothing is padded: over all workers, each sample is there once."""
    return range(rank, samples, world)
