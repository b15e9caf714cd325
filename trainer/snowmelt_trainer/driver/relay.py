"""From the leading worker to the driver: an actor that keeps the newest snapshots until the driver fetches them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from snowmelt_trainer.contract.progress import Progress

log = logging.getLogger(__name__)

CAPACITY = 256
WAIT_SECONDS = 5.0
AGAIN_SECONDS = 1.0
SETTLE_SECONDS = 30.0


class _Mailbox:
    """An asyncio actor: `put` never blocks the sender, `take` waits for something to come."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque(maxlen=CAPACITY)
        self._filled = asyncio.Event()

    async def put(self, text: str) -> None:
        self._waiting.append(text)
        self._filled.set()

    async def take(self, wait_s: float) -> list[str]:
        if wait_s > 0:
            try:
                await asyncio.wait_for(self._filled.wait(), wait_s)
            except TimeoutError:
                return []
        texts = list(self._waiting)
        self._waiting.clear()
        self._filled.clear()
        return texts


class Sender:
    """The worker's end. Sending returns at once and never fails: progress is never worth a training step."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._last: Any = None

    def __call__(self, progress: Progress) -> None:
        self._last = self._mailbox.put.remote(progress.model_dump_json(by_alias=True, exclude_none=True))

    def settle(self, within_s: float = SETTLE_SECONDS) -> None:
        """Waits until all that was sent has arrived: the worker may end then, and what was on its way would end with
        it. Gives up after `within_s`, or where the mailbox is gone."""
        if self._last is not None:
            ray.wait([self._last], timeout=within_s)


@contextmanager
def relayed(receive: Callable[[Progress], None]) -> Iterator[Sender]:
    """A sender for the workers; what it sends reaches `receive`, in order, in a thread of the driver. All of it has,
    when the block ends. Where Ray loses the mailbox, it makes another, and what lay in it is replaced by the next."""
    # Not soft: Ray puts what asks for no resource anywhere then, and it would go with the first worker's node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox: Any = ray.remote(_Mailbox).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
    over = threading.Event()

    def fetch(wait_s: float) -> bool:
        try:
            texts = ray.get(mailbox.take.remote(wait_s))
        except ray.exceptions.RayError as error:
            log.warning("the progress of a moment is lost, and the next will come: %s", error)
            return False
        for text in filter(None, texts):
            receive(Progress.model_validate_json(text))
        return True

    def run() -> None:
        while not over.is_set():
            if not fetch(WAIT_SECONDS):
                over.wait(AGAIN_SECONDS)

    thread = threading.Thread(target=run, name="progress-relay", daemon=True)
    thread.start()
    try:
        yield Sender(mailbox)
    finally:
        over.set()
        mailbox.put.remote("")  # wakes the thread
        thread.join()
        fetch(0)
        ray.kill(mailbox)
