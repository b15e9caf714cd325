"""What keeps the pods of an attempt from running, as decisions see it: the pods themselves stay at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from snowmelt_operator.api.reasons import Reason


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a pod of an attempt, or happened to it."""

    reason: Reason
    message: str
    """The cluster's own words, with the pod and container they are about."""
    pod: str | None
    """None: no pod could be made."""
    since: datetime
    """When it was first seen."""
    is_over: bool = False
    """It happened (a container was killed), rather than lasts (an image cannot be pulled)."""
    is_permanent: bool = False
    """It lasts until somebody changes something."""


@dataclass(frozen=True)
class LastWords:
    """The end of the log of a container that ended."""

    pod: str
    text: str
    """At most 2 KiB of text, without control characters."""
