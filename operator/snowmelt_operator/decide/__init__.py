"""What to do about an observed job. Pure: no I/O, no clock."""

from __future__ import annotations

from snowmelt_operator.decide.rules import RULES
from snowmelt_operator.decide.state import Decision, Observed

__all__ = ["Decision", "Observed", "decide"]


def decide(seen: Observed) -> Decision:
    """The decision of the first rule that applies; the last rule always does."""
    return next(decision for rule in RULES if (decision := rule(seen)) is not None)
