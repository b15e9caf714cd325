"""A FineTuneJob as the API server stores it, which an older schema or a disabled rule may have let in broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from snowmelt_operator.api.problems import problems_of
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.v1alpha1 import FineTuneJob, ObjectMeta

MAX_PROBLEMS = 10
"""How many problems of one spec a message names."""


@dataclass(frozen=True)
class InvalidJob:
    """A stored FineTuneJob whose spec (or status) this release refuses."""

    metadata: ObjectMeta
    status: FineTuneJobStatus
    problem: str
    """For people: every field that is wrong, what is wrong with it, and what to do."""


StoredJob = FineTuneJob | InvalidJob


def read_job(document: dict[str, Any]) -> StoredJob:
    """A FineTuneJob from the API server. Never raises for a broken spec: the job must be told, others served."""
    try:
        return FineTuneJob.parse(document)
    except ValidationError as error:
        return InvalidJob(
            metadata=ObjectMeta.model_validate(document["metadata"], by_alias=True, by_name=False),
            status=_readable_status(document.get("status")),
            problem=describe(error),
        )


def _readable_status(document: Any) -> FineTuneJobStatus:
    try:
        return FineTuneJobStatus.model_validate(document or {}, by_alias=True, by_name=False)
    except ValidationError:
        return FineTuneJobStatus()


def describe(error: ValidationError) -> str:
    """The problems as `path: what is wrong`, separated by semicolons."""
    problems = [str(problem) for problem in problems_of(error)]
    more = len(problems) - MAX_PROBLEMS
    return "; ".join(problems[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
