"""What a cache cost and saved."""

from __future__ import annotations

from collections.abc import Sequence

from snowmelt_trainer.contract.base import Contract
from snowmelt_trainer.contract.progress import CacheStatus

MAX_REASON = 256
"""As the contract bounds it."""


class Account(Contract):
    """One worker's, for this attempt at the stage; workers send it to each other."""

    building: float = 0.0
    """Seconds spent filling the cache."""
    saved: float = 0.0
    """Seconds not spent on loading images and on the prefix, less those spent on the cache."""
    bytes: int = 0
    """Kept at most at any time."""
    failure: str = ""
    """Why the cache was given up."""
    notes: tuple[str, ...] = ()
    """What a person should know."""


def combined(decided: CacheStatus, before: CacheStatus, workers: Sequence[Account]) -> CacheStatus:
    """The stage's cache as status shows it: `decided` with what all workers tell, by rank, added to what attempts
    `before` this one had spent and saved."""
    failures = [worker.failure for worker in workers if worker.failure]
    return decided.model_copy(
        update={
            "bytes": max(before.bytes, sum(worker.bytes for worker in workers)),
            "build_seconds": round(before.build_seconds + max(worker.building for worker in workers), 3),
            "saved_seconds": round(before.saved_seconds + workers[0].saved, 3),
            "reason": failures[0][:MAX_REASON] if failures else decided.reason,
            "failed": decided.failed or bool(failures),
        }
    )
