"""Say what was decided: one write of the status, and only when it changed; then the Events."""

from __future__ import annotations

import logging
from typing import Any

from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.cluster import Cluster, ClusterError
from snowmelt_operator.decide import Decision, Observed
from snowmelt_operator.decide.state import ReconcilerStatus

log = logging.getLogger(__name__)


async def report(seen: Observed, decision: Decision, cluster: Cluster) -> None:
    """Write status and Events. An Event that cannot be recorded is only logged: the status has said it.

    Raises:
        ClusterError: the status was not written; ClusterConflictError, because the job is not what was seen.
    """
    metadata = seen.job.metadata
    if decision.status is not None and decision.status != ReconcilerStatus.of(seen.job.status):
        await cluster.apply_status(metadata, status_fields(decision.status))
    for event in decision.events:
        log.info("%s/%s: %s: %s", metadata.namespace, metadata.name, event.reason, event.note)
        try:
            await cluster.record_event(event, seen.now)
        except ClusterError as error:
            log.warning(
                "%s/%s: the event %s was not recorded: %s", metadata.namespace, metadata.name, event.name, error
            )


def status_fields(status: ReconcilerStatus) -> dict[str, Any]:
    """The fields as they travel; server-side apply keeps those of the other field manager."""
    whole = status.onto(FineTuneJobStatus())
    return whole.model_dump(
        mode="json", by_alias=True, exclude_none=True, include=set(ReconcilerStatus.__dataclass_fields__)
    )
