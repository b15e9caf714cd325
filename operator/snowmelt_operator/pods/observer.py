"""The pods of our jobs, and of no others: what the watch and lists say of them, and what is asked where they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.cluster import Cluster, ClusterError, ClusterRefusedError
from snowmelt_operator.pods.book import PodBook
from snowmelt_operator.pods.evidence import Evidence
from snowmelt_operator.pods.pod import Pod
from snowmelt_operator.render.names import JOB_LABEL, UID_LABEL

POD_SELECTOR = JOB_LABEL
"""Every pod of ours has the label, and the API server sends no other."""
SILENCE = timedelta(seconds=15)
"""A pod that does not start and says nothing for so long has its Events looked at."""
MAX_EXPLAINED = 2
"""Pods of one attempt whose Events are looked at; the others wait for the same."""

log = logging.getLogger(__name__)


def _clock() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class Pods:
    """Looks at pods by watch, list and, rarely, by request. It only ever reads."""

    def __init__(
        self, cluster: Cluster, *, wake: Callable[[str, str], None], now: Callable[[], datetime] = _clock
    ) -> None:
        """`wake` is called with namespace and name of a FineTuneJob whose pods have news."""
        self._cluster = cluster
        self._wake = wake
        self._now = now
        self._book = PodBook(now)
        self._evidence = Evidence(cluster)
        self._refused = False

    async def may_be_watched(self) -> bool:
        """Whether the operator has the right to list and watch pods. Without it jobs run all the same; it is said once.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        refused = await self._cluster.watch_refused("v1", "Pod", label_selector=POD_SELECTOR)
        if refused is not None and not self._refused:
            log.warning(
                "the operator may not list and watch pods: of jobs that cannot run it knows what KubeRay says: %s",
                refused,
            )
        self._refused = refused is not None
        return refused is None

    async def refresh(self) -> None:
        """List the pods anew: the watch may have missed that some are gone.

        Raises:
            ClusterError
        """
        try:
            documents = await self._cluster.list_objects("v1", "Pod", label_selector=POD_SELECTOR)
        except ClusterRefusedError:
            return  # said by `may_be_watched`
        self._book.listed(pod for document in documents if (pod := Pod.parse(document)) is not None)

    def heard(self, document: dict[str, Any], *, deleted: bool) -> None:
        """Take what the watch says of a pod, and wake its FineTuneJob when it is news."""
        pod = Pod.parse(document)
        if pod is not None and self._book.heard(pod, deleted=deleted):
            self._wake(pod.metadata.namespace, pod.job_name)

    async def troubles(self, namespace: str, uid: str, attempt: int) -> tuple[Trouble, ...]:
        """What is wrong with the pods of an attempt, and what happened to them."""
        return (*self._book.troubles(uid, attempt), *await self._explained(namespace, uid, attempt))

    async def submitter_trouble(self, namespace: str, rayjob: str, began: datetime) -> Trouble | None:
        """Why KubeRay's Job, which submits to a cluster that is up, gets no pod: it has its RayJob's name."""
        return await self._evidence.job_refusal(namespace, rayjob, began)

    async def last_words(self, namespace: str, uid: str, attempt: int) -> LastWords | None:
        """The end of the log of the container that ended last."""
        if self._book.ended(uid, attempt) is None:
            await self._look_at_once(uid)
        ended = self._book.ended(uid, attempt)
        return None if ended is None else await self._evidence.last_words(namespace, ended)

    async def _look_at_once(self, uid: str) -> None:
        """At one job's pods: KubeRay may have said that an attempt failed before the watch says that a pod of it did.
        Where they cannot be listed, that costs the evidence and nothing else."""
        selector = f"{POD_SELECTOR},{UID_LABEL}={uid}"
        with suppress(ClusterError):
            for document in await self._cluster.list_objects("v1", "Pod", label_selector=selector):
                self.heard(document, deleted=False)

    def keep(self, living: set[str]) -> None:
        """Forget the pods of all jobs but these (uids)."""
        self._book.keep(living)

    async def _explained(self, namespace: str, uid: str, attempt: int) -> list[Trouble]:
        found = []
        silent = [pod for pod in self._book.unexplained(uid, attempt) if self._now() - pod.since >= SILENCE]
        for pod in silent[:MAX_EXPLAINED]:
            finding = await self._evidence.explanation(namespace, pod.uid)
            if finding is not None:
                found.append(Trouble(finding.reason, f"pod {pod.name}: {finding.message}", pod.name, pod.since))
        return found
