"""Checkpoints between two steps that no worker could decide on alone: someone asked for one, or the last is old."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from snowmelt_trainer.training.distributed import World

LOOK_EVERY_SECONDS = 1.0
MOST_STEPS = 10_000
"""Between two looks, however fast the steps are."""


def nobody() -> bool:
    """No one asks."""
    return False


def unheard() -> None:
    """No one is told."""


@dataclass
class CheckpointRequests:
    """What `asked` says and how old the newest checkpoint is, made known to all workers alike.

    The leading worker looks about once a second; what it sees, and in how many steps it looks again, it sends to the
    others. So the workers agree without a message in every step.
    """

    world: World = field(default_factory=World)
    asked: Callable[[], bool] = nobody
    """Whether somebody waits for a checkpoint; only the leading worker's is called. Must not block."""
    kept: Callable[[], None] = unheard
    """Tells whoever asked that a checkpoint lies in storage."""
    every_seconds: float | None = None
    """Oldest that the newest checkpoint may become; None: any age."""
    clock: Callable[[], float] = time.monotonic
    enabled: bool = False
    """False: `due` is never true, and costs nothing."""

    def __post_init__(self) -> None:
        self._kept_at = self._looked_at = self.clock()
        self._steps = self._left = 1

    def due(self) -> bool:
        """Whether to write a checkpoint now. To be called after each optimizer step, on every worker; the answer is
        the same on all."""
        if not self.enabled:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        mine = self._look() if self.world.leads else b""
        due, steps = self.world.from_leader(mine).split()
        self._steps = self._left = int(steps)
        return due == b"1"

    def written(self) -> None:
        """The leading worker has written a checkpoint, for whatever reason."""
        self._kept_at = self.clock()
        self.kept()

    def _look(self) -> bytes:
        now = self.clock()
        a_step = max(now - self._looked_at, 1e-9) / self._steps
        self._looked_at = now
        old = self.every_seconds is not None and now - self._kept_at >= self.every_seconds
        steps = min(max(1, round(LOOK_EVERY_SECONDS / a_step)), MOST_STEPS)
        return f"{int(self.asked() or old)} {steps}".encode()
