"""What the API server's audit log says of one user. Pure but for reading the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One request to the API server. A watch counts once, when it is opened."""

    at: datetime
    verb: str
    resource: str
    """With its subresource, for instance finetunejobs/status."""


def requests_of(audit_log: Path, user: str) -> list[Request]:
    """Every request of the user, in the order in which the API server received them."""
    with audit_log.open(encoding="utf-8") as lines:
        return parse(lines, user)


def parse(lines: Iterable[str], user: str) -> list[Request]:
    """Requests of the user from lines of audit.k8s.io/v1 events; stages of one request count once."""
    found: dict[str, Request] = {}
    for line in lines:
        event = json.loads(line)
        if event["user"]["username"] == user and event["auditID"] not in found:
            found[event["auditID"]] = Request(
                at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
                verb=event["verb"],
                resource=_resource(event),
            )
    return sorted(found.values(), key=lambda request: request.at)


def _resource(event: dict[str, dict[str, str]]) -> str:
    about = event.get("objectRef", {})
    if "resource" not in about:
        return "(no resource)"
    return about["resource"] + (f"/{about['subresource']}" if about.get("subresource") else "")


def per_job(requests: Iterable[Request], jobs: int) -> dict[tuple[str, str], float]:
    """Requests for each job, by verb and resource, the most frequent first."""
    counts = Counter((request.verb, request.resource) for request in requests)
    return {key: count / jobs for key, count in counts.most_common()}


def writes_per_job(requests: Iterable[Request], jobs: int) -> float:
    return sum(request.verb in WRITES for request in requests) / jobs


def per_minute(requests: Iterable[Request], since: datetime, until: datetime) -> dict[tuple[str, str], float]:
    """Requests a minute between two moments, by verb and resource."""
    minutes = (until - since) / timedelta(minutes=1)
    counts = Counter((request.verb, request.resource) for request in requests if since <= request.at < until)
    return {key: count / minutes for key, count in counts.most_common()}
