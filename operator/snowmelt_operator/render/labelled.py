"""Objects that carry our labels, as the API server hands them back: each is of one attempt of one job."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from snowmelt_operator.render.names import ATTEMPT_LABEL, JOB_LABEL, UID_LABEL


class Part(BaseModel):
    """A part of an object; what is not declared is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class Metadata(Part):
    """The parts of metadata that are read of such objects."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}


class OfAttempt(Part):
    """An object of one of our attempts."""

    metadata: Metadata

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Self | None:
        """The object; None for one that lacks our labels."""
        labels = document.get("metadata", {}).get("labels") or {}
        ours = labels.get(UID_LABEL) and labels.get(JOB_LABEL) and labels.get(ATTEMPT_LABEL, "").isdecimal()
        return cls.model_validate(document) if ours else None

    @property
    def job_uid(self) -> str:
        return self.metadata.labels[UID_LABEL]

    @property
    def job_name(self) -> str:
        return self.metadata.labels[JOB_LABEL]

    @property
    def attempt(self) -> int:
        return int(self.metadata.labels[ATTEMPT_LABEL])
