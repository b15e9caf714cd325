"""A stratified, seeded validation split."""

from __future__ import annotations

import numpy as np

_PURPOSE = 1
"""Keeps this stream of random numbers apart from those of `batches` and `transforms`, which share the seed."""


def hold_out(labels: tuple[int, ...], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide sample ids into (training, validation), class by class, both in ascending order.

    Of each class, `fraction` of the samples, rounded, is held out; but at least one sample is kept for training, and
    where a class has two or more, at least one is held out. It depends on nothing but the arguments.
    """
    held_out: list[int] = []
    by_class = np.asarray(labels)
    for label in np.unique(by_class):
        members = np.flatnonzero(by_class == label)
        if len(members) < 2:
            continue
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        shuffled = np.random.default_rng((_PURPOSE, seed, int(label))).permutation(members)
        held_out += shuffled[:count].tolist()
    chosen = set(held_out)
    return [i for i in range(len(labels)) if i not in chosen], sorted(held_out)
