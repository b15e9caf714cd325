"""The parts of a pod (core/v1) that tell whether it runs. Parsed once, here, and never kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from snowmelt_operator.render.names import ATTEMPT_LABEL, JOB_LABEL, UID_LABEL


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)


class _Metadata(_Part):
    name: str
    namespace: str
    uid: str
    resource_version: str
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}


class _Spec(_Part):
    node_name: str = ""


class Waiting(_Part):
    """A container that has not started, or is about to again."""

    reason: str = ""
    message: str = ""


class Terminated(_Part):
    """A container that ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class _State(_Part):
    waiting: Waiting | None = None
    running: dict[str, Any] | None = None
    terminated: Terminated | None = None


class Container(_Part):
    """One container's status."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: _State = _State()
    last_state: _State = _State()

    @property
    def ended(self) -> Terminated | None:
        """How it ended the last time."""
        return self.state.terminated or self.last_state.terminated


class PodCondition(_Part):
    """One condition of the pod."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class _Status(_Part):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    init_container_statuses: tuple[Container, ...] = ()
    container_statuses: tuple[Container, ...] = ()


class Pod(_Part):
    """A pod of ours."""

    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Pod | None:
        """A pod of one of our attempts; None for one that lacks our labels."""
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

    @property
    def version(self) -> int:
        """Kubernetes 1.35 made resource versions comparable (KEP-5504); etcd's always were."""
        return int(self.metadata.resource_version)

    @property
    def containers(self) -> tuple[Container, ...]:
        """The init containers, then the others."""
        return self.status.init_container_statuses + self.status.container_statuses

    def condition(self, type_: str) -> PodCondition | None:
        return next((condition for condition in self.status.conditions if condition.type == type_), None)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self.status.phase in ("Failed", "Succeeded") or self.metadata.deletion_timestamp is not None
