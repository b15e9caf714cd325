"""One job, from what is to what should be: observe, decide, act, report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from snowmelt_operator.act import Means, act
from snowmelt_operator.api.policy import DEFAULT_POLICY, Policy
from snowmelt_operator.cluster import ClusterConflictError, ClusterError
from snowmelt_operator.decide import Decision, Observed, decide
from snowmelt_operator.launchers.base import LauncherError, LauncherUnavailableError, LaunchRefusedError
from snowmelt_operator.observe import clock, observe
from snowmelt_operator.queue import RetryLaterError
from snowmelt_operator.report import report
from snowmelt_operator.store import JobStore, Key

log = logging.getLogger(__name__)

AT_ONCE = timedelta()


class Reconciler:
    """Reconciles jobs by key; the queue sees to it that one key is reconciled once at a time."""

    def __init__(
        self, store: JobStore, means: Means, *, policy: Policy = DEFAULT_POLICY, now: Callable[[], datetime] = clock
    ) -> None:
        self._policy = policy
        self._store = store
        self._means = means
        self._now = now

    async def __call__(self, key: Key) -> timedelta | None:
        """Reconcile one job; returns when to look at it again at the latest.

        Raises:
            RetryLaterError: the API server or the launcher could not be asked, or did not do it.
        """
        try:
            await self._settle_gone(key)
            try:
                return await self._reconcile(key)
            except ClusterConflictError:
                await self._read_live(key)
                return AT_ONCE
        except (ClusterError, LauncherError) as error:
            raise RetryLaterError(str(error)) from error

    async def _reconcile(self, key: Key) -> timedelta | None:
        seen, decision = await self._look(key)
        if seen is None or decision is None:
            return None
        if decision.launches or decision.finishes(seen):
            # Decided from memory, which may be behind; before something irrevocable the job is read live.
            seen, decision = await self._look_live(key)
            if seen is None or decision is None:
                return None
        if decision.has_news(seen):
            seen, decision = await self._look_at_the_log(seen, decision)
        try:
            await act(seen, decision, self._means)
        except LaunchRefusedError as error:
            seen, decision = self._decide_again(replace(seen, refusal=str(error)))
            await act(seen, decision, self._means)
        except LauncherUnavailableError as error:
            seen, decision = self._decide_again(replace(seen, obstacle=str(error)))
            if decision.rule != "obstructed":
                raise
        await report(seen, decision, self._means.cluster)
        if decision.failed_attempt is not None:
            self._means.on_failed_attempt(decision.failed_attempt)
        if seen.obstacle is not None and decision.rule == "obstructed":
            raise RetryLaterError(seen.obstacle)
        return decision.recheck_after

    async def _look_at_the_log(self, seen: Observed, decision: Decision) -> tuple[Observed, Decision]:
        """What went wrong is recorded with the end of the log, which is read before the pods are gone."""
        words = await self._means.launcher.last_words(seen.job.metadata, seen.attempts.current)
        return (seen, decision) if words is None else self._decide_again(replace(seen, last_words=words))

    async def _look(self, key: Key) -> tuple[Observed, Decision] | tuple[None, None]:
        job = self._store.get(key)
        if job is None:
            return None, None
        return self._decide_again(await observe(job, self._means.launcher, self._now(), self._policy))

    async def _look_live(self, key: Key) -> tuple[Observed, Decision] | tuple[None, None]:
        await self._read_live(key)
        await self._settle_gone(key)
        return await self._look(key)

    async def _read_live(self, key: Key) -> None:
        """Bring the store up to date with the job as it is now."""
        known = self._store.get(key)
        live = await self._means.cluster.get_job(key.namespace, key.name)
        if live is None and known is not None:
            self._store.remove(key, known.metadata.uid)

    def _decide_again(self, seen: Observed) -> tuple[Observed, Decision]:
        return seen, decide(seen)

    async def _settle_gone(self, key: Key) -> None:
        """Stop whatever ran for deleted jobs of this name. Garbage collection may do it too."""
        launcher = self._means.launcher
        for gone in self._store.gone(key):
            for attempt in {gone.attempt, launcher.newest(gone.metadata)} - {0}:
                await launcher.stop(gone.metadata, attempt)
            self._store.settled(key, gone)


class Resync:
    """Lists everything at the start, every so often, and soon after a watch had to begin anew."""

    def __init__(
        self,
        store: JobStore,
        means: Means,
        *,
        wake: Callable[[Key], None],
        listed: Callable[[], None],
        every: float,
        backoff_max: float,
    ) -> None:
        """`listed` is called after each list; times in seconds."""
        self._store = store
        self._means = means
        self._wake = wake
        self._listed = listed
        self._every = every
        self._backoff_max = backoff_max
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """List soon, for instance because a watch may have missed deletions."""
        self._asked.set()

    async def run(self) -> None:
        """Never ends."""
        failures = 0
        while True:
            try:
                await self.once()
            except (ClusterError, LauncherError) as error:
                failures += 1
                delay = min(2.0 ** min(failures - 1, 16), self._backoff_max)
                log.warning("listing everything failed: %s; trying again in %.0f s", error, delay)
                await asyncio.sleep(delay)
            else:
                failures = 0
                await self._pause()

    async def once(self) -> None:
        """List everything: wake what exists, forget what vanished, stop what runs for jobs that are gone.

        Raises:
            ClusterError, LauncherError
        """
        problem = await self._refresh_launcher()
        before = set(self._store)
        jobs = await self._means.cluster.list_jobs()
        for key in self._store.replace(before, jobs):
            self._wake(key)
        for key in self._store:
            self._wake(key)
        self._listed()
        if problem is not None:
            raise problem
        await self._means.launcher.sweep({job.metadata.uid for job in jobs})

    async def _refresh_launcher(self) -> LauncherError | None:
        """An unreachable Ray is no reason to leave the jobs alone: each of them says so in its status."""
        try:
            await self._means.launcher.refresh()
        except LauncherError as error:
            return error
        return None

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._asked.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_GATHER)
        self._asked.clear()


_GATHER = 1.0
"""Seconds in which the reports of a watch that begins anew are gathered into one list."""
