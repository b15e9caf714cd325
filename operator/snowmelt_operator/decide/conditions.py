"""Conditions and the phase that follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from snowmelt_operator.api.conditions import Condition, ConditionType, Phase
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.decide.state import find_condition

MAX_MESSAGE = 4096
"""Characters of a message; what launchers and trainers say is cut there."""


@dataclass(frozen=True)
class Says:
    """What is to be said about one condition."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: StrEnum
    message: str = ""


def merge(old: tuple[Condition, ...], says: Iterable[Says], *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """The new conditions, in the order of `ConditionType`. What nothing is said about stays; lastTransitionTime moves
    only when the status does (KEP-1623)."""
    known = [*ConditionType]
    merged = {condition.type: condition for condition in old if condition.type in known}
    for said in says:
        before = merged.get(said.type)
        unchanged = before is not None and before.status == said.status
        merged[said.type] = Condition(
            type=said.type,
            status=said.status,
            reason=said.reason,
            message=said.message[:MAX_MESSAGE],
            last_transition_time=before.last_transition_time if before is not None and unchanged else now,
            observed_generation=generation,
        )
    return tuple(merged[type_] for type_ in known if type_ in merged)


def phase_of(conditions: tuple[Condition, ...]) -> Phase:
    """One word for the conditions."""
    holds = {condition.type for condition in conditions if condition.status == "True"}
    for type_, phase in _PHASES:
        if type_ in holds:
            return phase
    running = find_condition(conditions, ConditionType.RUNNING)
    under_way = running is not None and running.reason in (Reason.STARTING, Reason.STOPPING)
    return Phase.STARTING if under_way else Phase.PENDING


_PHASES = (
    (ConditionType.FAILED, Phase.FAILED),
    (ConditionType.COMPLETE, Phase.SUCCEEDED),
    (ConditionType.SUSPENDED, Phase.SUSPENDED),
    (ConditionType.QUEUED, Phase.QUEUED),
    (ConditionType.RUNNING, Phase.RUNNING),
)
"""The first condition that holds gives the phase."""
