"""A token bucket for each key. Pure but for the table; the clock's value is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """What is left, at a time."""

    left: float
    at: float


class RateLimit:
    """`burst` requests at once, then `per_second`, for each key; beyond `max_keys` the longest unused is forgotten."""

    def __init__(self, *, per_second: float = 2.0, burst: int = 20, max_keys: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: dict[str, Bucket] = {}

    def seconds_to_wait(self, key: str, now: float) -> float:
        """0 when a request may pass now, and it is counted; else how long to wait."""
        bucket = self._buckets.pop(key, None) or Bucket(self._burst, now)
        left = min(self._burst, bucket.left + max(0.0, now - bucket.at) * self._per_second)
        passes = left >= 1
        self._buckets[key] = Bucket(left - 1 if passes else left, now)
        if len(self._buckets) > self._max_keys:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if passes else (1 - left) / self._per_second
