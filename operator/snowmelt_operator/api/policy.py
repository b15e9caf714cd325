"""How patient the operator is, and how often it tries again: what its settings say of decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Policy:
    """Graces count from when a trouble was first seen."""

    image_pull_grace: timedelta = timedelta(seconds=120)
    """How long an image may be impossible to pull before the job fails."""
    volume_grace: timedelta = timedelta(seconds=120)
    """How long a claim may be missing before the job fails."""
    start_grace: timedelta = timedelta(seconds=60)
    """How long pods may be refused, or containers fail to start, before the job or the attempt fails."""
    stall: timedelta = timedelta(seconds=600)
    """A trainer that is silent for so long is called stalled."""
    stall_grace: timedelta = timedelta(seconds=600)
    """A stalled attempt that stays silent for so long is given up."""
    retry_base: timedelta = timedelta(seconds=10)
    """The delay after a first failed attempt; it doubles with each that wrote no checkpoint."""
    retry_max: timedelta = timedelta(seconds=360)
    """The longest delay."""

    def retry_delay(self, futile: int) -> timedelta:
        """How long to wait after so many failed attempts in a row of which none but perhaps the first wrote a
        checkpoint."""
        doubled = self.retry_base * (1 << min(max(futile - 1, 0), 16))
        return min(doubled, self.retry_max)


DEFAULT_POLICY = Policy()
