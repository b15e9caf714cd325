"""A keyed work queue, as in client-go's workqueue: a key waits once at most, and is never worked on twice at a time."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from snowmelt_operator.store import Key

log = logging.getLogger(__name__)

Work = Callable[[Key], Awaitable[timedelta | None]]
"""Works on a key; returns after what time to do so again at the latest. Raises to be called again after a while."""


class RetryLaterError(Exception):
    """The work could not be done now; the message is for people and needs no trace."""


class WorkQueue:
    """Bounded workers over keys. One timer serves all delayed keys."""

    def __init__(
        self,
        work: Work,
        *,
        workers: int,
        backoff_base: float,
        backoff_max: float,
        clock: Callable[[], float] = time.monotonic,
        on_done: Callable[[float, bool], None] = lambda _seconds, _failed: None,
        on_depth: Callable[[int], None] = lambda _depth: None,
    ) -> None:
        """Times in seconds. `on_done` hears how long each key took and whether it failed."""
        self._work = work
        self._workers = workers
        self._backoff = (backoff_base, backoff_max)
        self._clock = clock
        self._on_done = on_done
        self._on_depth = on_depth
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._woken_meanwhile: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, Key]] = []
        self._sooner = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def wake(self, key: Key) -> None:
        """Work on the key as soon as a worker is free; again, when it is being worked on."""
        if key in self._working:
            self._woken_meanwhile.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)
            self._on_depth(len(self._waiting))

    def wake_after(self, key: Key, delay: float) -> None:
        """Work on the key after so many seconds; replaces an earlier delay of it."""
        due = self._clock() + max(delay, 0.0)
        self._due[key] = due
        heapq.heappush(self._timers, (due, key))
        self._sooner.set()

    def start(self) -> None:
        """Start the workers and the timer; `tasks` holds them."""
        self.tasks = [asyncio.create_task(self._serve(), name=f"worker {number}") for number in range(self._workers)]
        self.tasks.append(asyncio.create_task(self._tick(), name="timer"))

    async def stop(self) -> None:
        """End the workers in the middle of what they do; everything they do can be done again."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._on_depth(len(self._waiting))
            self._working.add(key)
            started = self._clock()
            failed = not await self._attempt(key)
            self._on_done(self._clock() - started, failed)
            self._working.discard(key)
            if key in self._woken_meanwhile:
                self._woken_meanwhile.discard(key)
                self.wake(key)

    async def _attempt(self, key: Key) -> bool:
        self._due.pop(key, None)
        try:
            recheck_after = await self._work(key)
        except RetryLaterError as error:
            log.warning("%s: %s; trying again in %.1f s", key, error, self._back_off(key))
            return False
        except Exception:
            log.exception("%s: reconciling failed; trying again in %.1f s", key, self._back_off(key))
            return False
        self._failures.pop(key, None)
        if recheck_after is not None:
            self.wake_after(key, recheck_after.total_seconds())
        return True

    def _back_off(self, key: Key) -> float:
        base, longest = self._backoff
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(base * 2.0 ** min(failures - 1, 32), longest)
        self.wake_after(key, delay)
        return delay

    async def _tick(self) -> None:
        while True:
            self._sooner.clear()
            now = self._clock()
            while self._timers and self._timers[0][0] <= now:
                due, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:  # else it was replaced, or the key was worked on since
                    del self._due[key]
                    self.wake(key)
            delay = self._timers[0][0] - now if self._timers else None
            # Not wait_for: Python 3.11's swallows a cancellation that comes together with its timeout (cpython#86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._sooner.wait()
