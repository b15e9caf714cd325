"""What is asked of the API server about one pod, and only where something is wrong: its Events and a log's end."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.cluster import Cluster, ClusterError, ClusterRefusedError, Warned
from snowmelt_operator.pods.book import EndedContainer
from snowmelt_operator.pods.diagnosis import Finding
from snowmelt_operator.pods.refusal import refusal

MAX_WORDS = 2048
"""Characters of a log that are kept."""
_FORBIDDEN = 403
_TELLING = {
    "FailedMount": Reason.VOLUME_ERROR,
    "FailedAttachVolume": Reason.VOLUME_ERROR,
    "FailedMapVolume": Reason.VOLUME_ERROR,
    "FailedCreatePodSandBox": Reason.CONTAINER_START_ERROR,
}
_NOT_MADE = "FailedCreate"
"""The Job controller's word for a pod that the API server does not take."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f]")

log = logging.getLogger(__name__)


class Evidence:
    """A right that is missing, or an API server that fails, costs the evidence and nothing else."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: set[str] = set()

    async def explanation(self, namespace: str, uid: str) -> Finding | None:
        """Why the pod of that uid does not start, by its Events; None where they do not tell."""
        return explain(await self._warnings(namespace, {"uid": uid}, "volumes that cannot be mounted stay"))

    async def job_refusal(self, namespace: str, job: str, began: datetime) -> Trouble | None:
        """Why a Job (batch/v1) of that name, made after `began`, gets no pod; None where its Events do not tell."""
        warnings = await self._warnings(namespace, {"kind": "Job", "name": job}, "a submitter that is refused stays")
        # An earlier Job of this name may have left Events.
        return refused(warning for warning in warnings if warning.since >= began)

    async def _warnings(self, namespace: str, regarding: Mapping[str, str], stays: str) -> list[Warned]:
        """None where they may not be read; the log says what `stays` unexplained."""
        try:
            return await self._cluster.warnings_about(namespace, regarding)
        except ClusterError as error:
            self._tell(f"read Events (events.k8s.io: list), so {stays} unexplained", error)
            return []

    async def last_words(self, namespace: str, container: EndedContainer) -> LastWords | None:
        """The end of that container's log; None where it cannot be had."""
        ended = container.ended
        try:
            tail = await self._cluster.log_tail(namespace, container.pod, ended.container, previous=ended.restarted)
        except ClusterError as error:
            self._tell("read logs (pods/log: get), so the end of a failed pod's log is not kept", error)
            return None
        text = readable(tail)
        return LastWords(container.pod, text) if text else None

    def _tell(self, what: str, error: ClusterError) -> None:
        """Say once what the operator may not do; what fails otherwise only matters to who looks for it."""
        forbidden = isinstance(error, ClusterRefusedError) and error.status == _FORBIDDEN
        if forbidden and what not in self._told:
            self._told.add(what)
            log.warning("the operator may not %s: %s", what, error)
        elif not forbidden:
            log.info("%s", error)


def explain(warnings: Iterable[Warned]) -> Finding | None:
    """What a pod's Warning Events mean; the first that tells counts."""
    for warning in warnings:
        if warning.reason in _TELLING:
            return Finding(_TELLING[warning.reason], f"{warning.reason}: {warning.note}")
    return None


def refused(warnings: Iterable[Warned]) -> Trouble | None:
    """What a Job's Warning Events mean; the first that tells counts."""
    for warning in warnings:
        found = refusal(warning.note) if warning.reason == _NOT_MADE else None
        if found is not None:
            return Trouble(found.reason, found.message, None, warning.since, is_permanent=found.is_permanent)
    return None


def readable(tail: bytes) -> str:
    """The end of a log as plain text: no colours, no control characters, whole lines where they fit."""
    text = _CONTROL.sub("", tail.decode(errors="replace")).strip()
    if len(text) <= MAX_WORDS:
        return text
    cut = text[-MAX_WORDS:]
    return cut.partition("\n")[2] or cut
