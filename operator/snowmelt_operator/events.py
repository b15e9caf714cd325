"""Kubernetes Events (events.k8s.io/v1) of a FineTuneJob. Names follow from content: recording one twice leaves one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, ObjectMeta

REPORTER = "snowmelt.dev/operator"
MAX_NOTE = 1024
"""The API server's bound for a note, in bytes."""


class Severity(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Event:
    """Something that happened to a job once."""

    regarding: ObjectMeta
    reason: str
    note: str
    action: str
    severity: Severity = Severity.NORMAL
    occasion: str = ""
    """Tells two events of the same reason apart, for instance the attempt."""

    @property
    def name(self) -> str:
        """The same for the same event, another for another; at most 40 + 1 + 16 characters."""
        content = "\0".join((self.regarding.uid, self.reason, self.action, self.occasion))
        return f"{self.regarding.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def event_manifest(event: Event, now: datetime, *, reporter: str) -> dict[str, Any]:
    """The Event object; `reporter` names this replica."""
    about = event.regarding
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event.name, "namespace": about.namespace},
        "eventTime": now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": REPORTER,
        "reportingInstance": reporter[:128],
        "action": event.action,
        "reason": event.reason,
        "type": event.severity,
        "note": event.note.encode()[:MAX_NOTE].decode(errors="ignore"),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
    }
