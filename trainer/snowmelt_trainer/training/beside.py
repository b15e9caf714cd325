"""Work that goes on beside training, one piece at a time: a checkpoint is written while the next epoch is trained."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

Action = Callable[[], object]


class Beside:
    """Does one thing at a time in a thread of its own. A context manager, which waits for what is under way."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="beside-training")
        self._under_way: tuple[Future[object], Action] | None = None

    def do(self, work: Action, afterwards: Action) -> None:
        """Starts `work`, once what was under way is done; `afterwards` is called when it has succeeded, by `look` or
        `settle`. Raises as `settle`."""
        self.settle()
        self._under_way = self._pool.submit(work), afterwards

    def look(self) -> None:
        """Costs next to nothing while the work goes on; when it is done, raises as `settle`."""
        if self._under_way is not None and self._under_way[0].done():
            self.settle()

    def settle(self) -> None:
        """Waits for what is under way. Raises what the work raised."""
        if self._under_way is not None:
            (future, afterwards), self._under_way = self._under_way, None
            future.result()
            afterwards()

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
