"""Look at every file once before training: a corrupt one fails the run now and not in its third hour, and duplicates
are counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt

from snowmelt_trainer.data.images import QUICK, digest_of
from snowmelt_trainer.data.samples import SampleSet, examples

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""Pillow lets go of Python's lock while it decodes, and most of the time on a volume is spent waiting for it."""
_AT_ONCE = 1024
"""Files handed to the threads at a time, so that memory does not grow with the data."""
_IN_TURN = 16
"""Files that one thread does and times, before that is decided anew."""

Digests = npt.NDArray[np.bytes_]


def digests(samples: SampleSet, seen: Callable[[int], None]) -> Digests:
    """SHA-256 of every file, 32 bytes each; `seen` is told how many files were done since it was last called.

    Raises:
        RunError: of the first file, in the order of the samples, that cannot be decoded.
    """
    found = np.zeros(len(samples), dtype="S32")
    with ThreadPoolExecutor(THREADS, thread_name_prefix="inspect") as pool:
        paths = iter(samples.paths)
        start, quick = 0, True
        while batch := list(islice(paths, _IN_TURN if quick else _AT_ONCE)):
            began = time.perf_counter()
            digested = map(digest_of, batch) if quick else pool.map(digest_of, batch)
            found[start : start + len(batch)] = list(digested)
            quick = not quick or time.perf_counter() - began <= QUICK * len(batch)
            start += len(batch)
            seen(len(batch))
    return found


def duplicates(samples: SampleSet, own: Digests, train: Digests, *, name: str) -> tuple[int, tuple[str, ...]]:
    """How many samples have the same bytes as one in the training set, and the warning that says so."""
    known = np.isin(own, train)
    count = int(known.sum())
    if not count:
        return 0, ()
    some = examples(samples.paths[i] for i in np.flatnonzero(known))
    return count, (
        f"{count} of {len(samples)} {name} images are also in the training data, so their figures flatter: {some}",
    )
