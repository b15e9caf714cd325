"""Whether a cache pays, how many views it holds, and where: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snowmelt_trainer.contract.optimization import ActivationCache, CacheMode
from snowmelt_trainer.contract.progress import CachePlace

FEWEST_VIEWS = 2
"""With augmentation. One view is no augmentation at all, so fewer than this are kept only where spec.optimization.cache
asks for it."""
MOST_VIEWS = 8
"""Automatically. More cost more time and memory, and a stage that trains only the last layers sees little more in
them."""
MARGIN = 0.05
"""Share of the time without a cache that it has to save: less is within what the measurement can tell."""


@dataclass(frozen=True)
class Transfer:
    """Seconds to write, and to read, one row."""

    write: float
    read: float


@dataclass(frozen=True)
class Costs:
    """What was measured on one worker, for one sample."""

    load: float
    """Seconds to decode and augment the image."""
    prefix: float
    """Seconds in the prefix."""
    row_bytes: int
    memory: Transfer
    disk: Transfer


@dataclass(frozen=True)
class Room:
    """Bytes that one worker may fill."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Work:
    """What a stage asks of the worker with the largest share."""

    epochs: int
    """The most there can be."""
    samples: int
    """Training images."""
    validation: int
    """Validation images."""
    augmented: bool


@dataclass(frozen=True)
class Decision:
    """What is built; `views` is 0 when nothing is."""

    views: int
    place: CachePlace | None
    reason: str

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Decision:
        """From what `dataclasses.asdict` gave, by way of JSON."""
        place = document["place"]
        return cls(int(document["views"]), None if place is None else CachePlace(place), str(document["reason"]))


def decide(wanted: ActivationCache, work: Work, costs: Costs, room: Room) -> Decision:
    """The cache for a stage.

    Without a cache a stage of E epochs takes E·(N+M)·(load + prefix) for N training and M validation images, besides
    the suffix. With one of K views, it takes (K·N+M)·(load + prefix + write) + E·(N+M)·read.

    Fewer variations than epochs can cost accuracy, so automatically they are not traded for time: they have to be asked
    for (docs/design/20261125-activation-cache.md).
    """
    if wanted.mode is CacheMode.AUTO and wanted.views is None and work.augmented:
        return _not_built("the images vary from epoch to epoch, and cache.views does not ask to keep some variations")
    views = wished_views(wanted, work)
    place, fitting = _placed(views, work, costs, room)
    fewest = 1 if wanted.views is not None or not work.augmented else min(FEWEST_VIEWS, views)
    if place is None or fitting < fewest:
        needed = _bytes(fewest, work, costs)
        return _not_built(
            f"{_shown(needed)} do not fit: {_shown(room.memory)} of memory and {_shown(room.disk)} of disk may be used"
        )
    without, kept = _seconds(fitting, place, work, costs)
    numbers = f"{fitting} views in {_shown(_bytes(fitting, work, costs))}: {kept:.3g} s instead of {without:.3g} s"
    if wanted.mode is CacheMode.AUTO and without - kept < MARGIN * without:
        return _not_built(f"it would not pay over {work.epochs} epochs: {numbers}")
    return Decision(fitting, place, f"expected for the frozen layers over {work.epochs} epochs, {numbers}")


def wished_bytes(wanted: ActivationCache, work: Work, row_bytes: int) -> int:
    """What one worker's cache would take if room were no matter."""
    return (wished_views(wanted, work) * work.samples + work.validation) * row_bytes


def wished_views(wanted: ActivationCache, work: Work) -> int:
    """How many views there would be if room were no matter."""
    if not work.augmented:
        return 1
    automatic = min(MOST_VIEWS, max(FEWEST_VIEWS, -(-work.epochs // 2)))
    return min(work.epochs, wanted.views or automatic)


def _placed(views: int, work: Work, costs: Costs, room: Room) -> tuple[CachePlace | None, int]:
    """Memory where all views fit there, else files, else what fits of them in the larger of the two."""
    if _bytes(views, work, costs) <= room.memory:
        return CachePlace.MEMORY, views
    if _bytes(views, work, costs) <= room.disk:
        return CachePlace.FILE, views
    place, most = max(((CachePlace.MEMORY, room.memory), (CachePlace.FILE, room.disk)), key=lambda one: one[1])
    fitting = (most // costs.row_bytes - work.validation) // work.samples
    return (place, fitting) if fitting > 0 else (None, 0)


def _bytes(views: int, work: Work, costs: Costs) -> int:
    return (views * work.samples + work.validation) * costs.row_bytes


def _seconds(views: int, place: CachePlace, work: Work, costs: Costs) -> tuple[float, float]:
    """Seconds for the frozen layers over all epochs: without a cache, and with it."""
    compute = costs.load + costs.prefix
    transfer = costs.memory if place is CachePlace.MEMORY else costs.disk
    passes = work.epochs * (work.samples + work.validation)
    rows = views * work.samples + work.validation
    return passes * compute, rows * (compute + transfer.write) + passes * transfer.read


def _not_built(reason: str) -> Decision:
    return Decision(0, None, f"not built: {reason}")


def _shown(size: int) -> str:
    """Bytes in a unit that people read."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"
