"""Work that goes on beside training, one piece at a time: a checkpoint is written while the next epoch is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

Action = Callable[[], object]
CHEAP_SECONDS = 0.1
"""Of processor time: what takes less may be done as often as one likes."""
SHARE = 0.01
"""Of the processors' time, how much may go to what is done beside training and could as well be done later."""


@dataclass(frozen=True)
class Piece:
    """Some work; `afterwards` is called when it has succeeded, by whoever looks or settles."""

    work: Action
    afterwards: Action


@dataclass
class Rest:
    """After what was done last. Whoever goes on where another ends shares it."""

    until: float = float("-inf")


class Beside:
    """Does one thing at a time in a thread of its own. A context manager, which waits for it.

    What is done here takes processor time from training. So after each piece that is not cheap there is a rest, long
    enough for that time to be no more than SHARE of what `cpus` processors had to give.
    """

    def __init__(
        self, cpus: float = 1.0, clock: Callable[[], float] = time.monotonic, rest: Rest | None = None
    ) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="beside-training")
        self._under_way: tuple[Future[float], Piece] | None = None
        self._cpus, self._clock, self._rest = cpus, clock, rest or Rest()

    @property
    def free(self) -> bool:
        """Whether nothing is under way, and the rest after what was done last is over."""
        return self._under_way is None and self._clock() >= self._rest.until

    def do(self, piece: Piece) -> None:
        """Starts it, once what is under way is done; does not wait for the rest to be over. Raises as `settle`."""
        self.settle()
        self._under_way = self._pool.submit(_measured, piece.work), piece

    def look(self) -> None:
        """Costs next to nothing while the work goes on; when it is done, raises what it raised."""
        if self._under_way is not None and self._under_way[0].done():
            self.settle()

    def settle(self) -> None:
        """Waits for what is under way. Raises what the work raised."""
        if self._under_way is None:
            return
        (future, piece), self._under_way = self._under_way, None
        spent = future.result()
        self._rest.until = self._clock() + (spent / self._cpus / SHARE if spent > CHEAP_SECONDS else 0.0)
        piece.afterwards()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            self._pool.shutdown()


def _measured(work: Action) -> float:
    """Does it; seconds of processor time that it took this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began
