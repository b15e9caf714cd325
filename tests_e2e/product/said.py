"""What a job says of its troubles, and how soon."""

from __future__ import annotations

import time

from hack.kube.controlplane import eventually
from tests_e2e.product.jobs import ASKS_EVERY_S, Job

SAID_WITHIN_S = 30.0


def await_reason(job: Job, reason: str, since: float, within_s: float = SAID_WITHIN_S) -> float:
    """Until incidents and Events have the reason; seconds since `since`, a time of the Unix epoch."""
    for said, where in ((job.incident, "incident"), (job.events, "Event")):
        left = since + within_s - time.time()
        eventually(lambda said=said: bool(said(reason)), f"no {where} {reason}", left, ASKS_EVERY_S)
    return time.time() - since
