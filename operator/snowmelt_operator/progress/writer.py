"""Writes progress into status, sparing the API server: one write of a job in five seconds, at once when it matters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.cluster import ClusterConflictError, ClusterError, ClusterRefusedError
from snowmelt_operator.progress import coalesce
from snowmelt_operator.progress.coalesce import PACE, Lane
from snowmelt_operator.progress.display import status_of
from snowmelt_operator.progress.refusal import Refusal
from snowmelt_trainer.contract.progress import Progress

FIELD_MANAGER = "snowmelt-progress"
IDLE_SECONDS = 900.0
"""A lane that nobody used for so long is forgotten; status has what it knew."""
CONCURRENT_WRITES = 16

REQUEST_SECONDS = 5.0
"""Longest wait for one answer of the API server."""
RETRY_AFTER = 5
TRIES = 3
"""How often a snapshot is written when the job changes between look and write."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class JobStore(Protocol):
    """The part of `snowmelt_operator.cluster.Cluster` that progress needs."""

    async def get_job(self, namespace: str, name: str) -> StoredJob | None: ...

    async def apply_status(self, job: ObjectMeta, status: dict[str, Any], *, field_manager: str) -> None: ...


class _Slot:
    """A lane with what its I/O needs."""

    def __init__(self, namespace: str, name: str, uid: str) -> None:
        self.namespace, self.name, self.uid = namespace, name, uid
        self.lane = Lane()
        self.lock = asyncio.Lock()
        self.timer: asyncio.Task[None] | None = None
        self.refused: Refusal | None = None
        self.used_at = 0.0


class ProgressWriter:
    """Takes snapshots from the endpoint and applies them to /status with a field manager of its own.

    What was acknowledged without being written yet is lost when the process is killed; the trainer's next snapshot,
    seconds later, holds all of it. A stage change and a final record are acknowledged only once they are in status.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        pace: float = PACE,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._pace = pace
        self._clock = clock
        self._now = now
        self._slots: dict[str, _Slot] = {}
        self._writing = asyncio.Semaphore(CONCURRENT_WRITES)
        self._swept_at = clock()

    async def submit(self, namespace: str, name: str, uid: str, progress: Progress) -> None:
        """Take a snapshot; returns when it may be acknowledged.

        Raises:
            Refusal: 404 or 410 (no such job, or another one of its name), 409 (the attempt is over), 400 (the API
                server refuses the snapshot), 503 (it cannot be asked now; the sender keeps the snapshot).
        """
        slot = self._slot(namespace, name, uid)
        slot.lane = coalesce.offer(slot.lane, progress)
        await self._flush(slot)

    async def aclose(self) -> None:
        """Write what waits, once, and stop."""
        slots = list(self._slots.values())
        for slot in slots:
            self._disarm(slot)
        await asyncio.gather(*(self._write_pending(slot) for slot in slots), return_exceptions=True)

    def _slot(self, namespace: str, name: str, uid: str) -> _Slot:
        self._sweep()
        slot = self._slots.setdefault(uid, _Slot(namespace, name, uid))
        slot.used_at = self._clock()
        return slot

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept_at < IDLE_SECONDS / 10:
            return
        self._swept_at = now
        for uid, slot in list(self._slots.items()):
            if slot.lane.pending is None and not slot.lock.locked() and now - slot.used_at > IDLE_SECONDS:
                del self._slots[uid]

    async def _flush(self, slot: _Slot) -> None:
        """Write what is due in the lane, or set a timer for it."""
        async with slot.lock:
            if slot.refused is not None:
                raise slot.refused
            due = coalesce.due_at(slot.lane, self._pace)
            if due is None:
                return
            wait = due - self._clock()
            if wait > 0:
                self._arm(slot, wait)
                return
            await self._write_pending(slot)

    def _arm(self, slot: _Slot, wait: float) -> None:
        # kopf ends tasks that are not its own when it ends: a timer may be gone without having rung.
        if slot.timer is None or slot.timer.done():
            slot.timer = asyncio.create_task(
                self._flush_later(slot, wait), name=f"progress {slot.namespace}/{slot.name}"
            )

    def _disarm(self, slot: _Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None

    async def _flush_later(self, slot: _Slot, wait: float) -> None:
        await asyncio.sleep(wait)
        slot.timer = None
        try:
            await self._flush(slot)
        except Refusal as refusal:
            log.info("progress of %s/%s waits: %s", slot.namespace, slot.name, refusal.message)
            if slot.lane.pending is not None:
                self._arm(slot, self._pace)

    async def _write_pending(self, slot: _Slot) -> None:
        progress = slot.lane.pending
        if progress is None:
            return
        try:
            async with self._writing:
                await self._write_on_newest(slot, progress)
        except Refusal as refusal:
            if refusal.code != 503:
                slot.lane, slot.refused = Lane(), refusal
                self._slots.pop(slot.uid, None)
            raise
        slot.lane = coalesce.wrote(slot.lane, progress, self._clock())

    async def _write_on_newest(self, slot: _Slot, progress: Progress) -> None:
        """Write it, and again when the job changed between look and write."""
        for _ in range(TRIES):
            try:
                return await self._write(slot, progress)
            except ClusterConflictError:
                continue
        raise Refusal(503, "the job's status is being written by others: send again", retry_after=RETRY_AFTER)

    async def _write(self, slot: _Slot, progress: Progress) -> None:
        """Check against the job as it is now, then apply. Status says what is newest, so any replica may do this."""
        job = await asking(self._store.get_job(slot.namespace, slot.name))
        if job is None:
            raise Refusal(404, f"there is no FineTuneJob {slot.namespace}/{slot.name}: it was deleted")
        if job.metadata.uid != slot.uid:
            raise Refusal(
                410,
                f"FineTuneJob {slot.namespace}/{slot.name} was deleted and created anew; this run is of the old one",
            )
        if coalesce.already_recorded(job, progress):
            return
        if over := coalesce.why_over(job, progress):
            raise Refusal(409, over)
        status = status_of(progress, now=self._now())
        await asking(self._store.apply_status(job.metadata, status, field_manager=FIELD_MANAGER))


async def asking(request: Awaitable[T]) -> T:
    """The API server's answer, its refusals in the terms of the endpoint.

    Raises:
        Refusal: 404, 400 (it calls the status invalid), or 503 for what another try may mend.
        ClusterConflictError: the job is not at the version that was read.
    """
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            return await request
    except ClusterConflictError:
        raise
    except ClusterRefusedError as error:
        if error.status == 404:
            raise Refusal(404, "there is no such FineTuneJob any more: it was deleted") from error
        if error.status in (400, 422):
            raise Refusal(400, f"the API server refuses this progress: {str(error)[:500]}") from error
        log.error("progress cannot be written: %s", error)
        raise Refusal(503, "the operator cannot write status now: send again", retry_after=RETRY_AFTER) from error
    except (ClusterError, TimeoutError) as error:
        raise Refusal(503, "the API server cannot be asked now: send again", retry_after=RETRY_AFTER) from error
