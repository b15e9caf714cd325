"""Work that goes on beside training, one piece at a time: a checkpoint is written while the next epoch is trained."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

Action = Callable[[], object]


@dataclass(frozen=True)
class Piece:
    """Some work; `afterwards` is called when it has succeeded, by whoever looks or settles."""

    name: str
    work: Action
    afterwards: Action


class Beside:
    """Does one thing at a time in a thread of its own, while at most one more waits. A context manager, which waits for
    all of it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="beside-training")
        self._under_way: tuple[Future[object], Piece] | None = None
        self._waiting: Piece | None = None

    @property
    def waiting(self) -> str:
        """The name of what waits; empty when nothing does."""
        return self._waiting.name if self._waiting is not None else ""

    def do(self, piece: Piece) -> None:
        """Starts it, once what is under way and what waits is done. Raises as `settle`."""
        self.settle()
        self._start(piece)

    def offer(self, piece: Piece) -> None:
        """Starts it where nothing is under way; else it waits, in place of what had been waiting. Raises as `look`."""
        self.look()
        if self._under_way is None:
            self._start(piece)
        else:
            self._waiting = piece

    def look(self) -> None:
        """Costs next to nothing while the work goes on; when it is done, raises what it raised, and starts what
        waits."""
        if self._under_way is not None and self._under_way[0].done():
            self._conclude()

    def settle(self) -> None:
        """Waits for what is under way and what waits. Raises what the work raised."""
        while self._under_way is not None:
            self._conclude()

    def _start(self, piece: Piece) -> None:
        self._under_way = self._pool.submit(piece.work), piece

    def _conclude(self) -> None:
        assert self._under_way is not None
        (future, piece), self._under_way = self._under_way, None
        future.result()
        if self._waiting is not None:
            self._start(self._waiting)
            self._waiting = None
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
