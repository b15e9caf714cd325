"""Keeps kopf running. kopf ends for good on what it takes for fatal; the watches are simply begun anew then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import kopf

from snowmelt_operator.cluster import ClusterError
from snowmelt_operator.handlers import Connect, build_registry, build_settings
from snowmelt_operator.launchers.kuberay import KubeRayLauncher
from snowmelt_operator.store import JobStore, Key

BEGINNING_SECONDS = 10.0
"""What is listed so soon after the beginning belongs to it; later, a watch began anew and may have missed deletions."""
PAUSE_SECONDS = 2.0
IDENTITY: Any = "snowmelt"  # a NewType of kopf's own, which it does not export
"""By it kopf's peers would tell each other apart; there are none."""

log = logging.getLogger(__name__)


class Watches:
    """Feeds store and launcher with what the API server tells, and wakes what that is about."""

    def __init__(
        self,
        store: JobStore,
        kuberay: KubeRayLauncher | None,
        *,
        wake: Callable[[Key], None],
        ask_for_list: Callable[[], None],
    ) -> None:
        """`kuberay` is None where no RayJobs are to be watched."""
        self._store = store
        self._kuberay = kuberay
        self._wake = wake
        self._ask_for_list = ask_for_list
        self._began_at = time.monotonic()

    def job_event(self, kind: str | None, document: dict[str, Any]) -> None:
        self._noticed(kind)
        job = self._store.read(document)
        key = Key(job.metadata.namespace, job.metadata.name)
        news = self._store.remove(key, job.metadata.uid) if kind == "DELETED" else self._store.put(job)
        if news:
            self._wake(key)

    def rayjob_event(self, kind: str | None, document: dict[str, Any]) -> None:
        self._noticed(kind)
        assert self._kuberay is not None  # RayJobs are watched for it alone
        self._kuberay.heard(document, deleted=kind == "DELETED")

    def pod_event(self, kind: str | None, document: dict[str, Any]) -> None:
        self._noticed(kind)
        assert self._kuberay is not None  # pods are watched for it alone
        self._kuberay.pods.heard(document, deleted=kind == "DELETED")

    def _noticed(self, kind: str | None) -> None:
        if kind is None and time.monotonic() - self._began_at > BEGINNING_SECONDS:
            self._ask_for_list()

    async def run(self, connect: Connect, namespaces: tuple[str, ...], *, started: Callable[[], None]) -> None:
        """Never ends; calls `started` each time that kopf has begun."""
        while True:
            pods = await self._may_watch_pods()
            registry = build_registry(self, connect, rayjobs=self._kuberay is not None, pods=pods)
            # kopf takes every task that was created after its own for one of its own, and ends it with itself.
            others = asyncio.all_tasks()
            self._began_at = time.monotonic()
            try:
                tasks = await kopf.spawn_tasks(
                    registry=registry,
                    settings=build_settings(),
                    clusterwide=not namespaces,
                    namespaces=namespaces,
                    # kopf's own guess wants the user's name, and in a pod the user has none.
                    identity=IDENTITY,
                )
                started()
                # What vanished after the last list and before kopf's first is told by neither.
                relist = asyncio.get_running_loop().call_later(BEGINNING_SECONDS, self._ask_for_list)
                try:
                    await kopf.run_tasks(tasks, ignored=others)
                finally:
                    relist.cancel()
            except Exception as error:  # whatever it was, the watches must go on
                log.warning("the watches ended: %s: %s", type(error).__name__, error)
            log.warning("the watches begin anew in %.0f s", PAUSE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
            self._ask_for_list()

    async def _may_watch_pods(self) -> bool:
        """kopf gives up for good on what it may not watch, so it is asked for only where it may be."""
        while self._kuberay is not None:
            try:
                return await self._kuberay.pods.may_be_watched()
            except ClusterError as error:
                log.warning("%s", error)
                await asyncio.sleep(PAUSE_SECONDS)
        return False
