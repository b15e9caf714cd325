"""The parts of a pod (core/v1) that tell whether it runs. Parsed once, here, and never kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from snowmelt_operator.render.labelled import OfAttempt, Part

CRASH_LOOP = "CrashLoopBackOff"


class _Spec(Part):
    node_name: str = ""


class Waiting(Part):
    """A container that has not started, or is about to again."""

    reason: str = ""
    message: str = ""


class Terminated(Part):
    """A container that ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class _State(Part):
    waiting: Waiting | None = None
    running: dict[str, Any] | None = None
    terminated: Terminated | None = None


class Container(Part):
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

    @property
    def waiting(self) -> Waiting | None:
        """What it waits for. Between two restarts that is CrashLoopBackOff, which not every kubelet writes: the status
        may go on showing how the container ended."""
        ended = self.state.terminated
        if ended is None or ended.exit_code == 0 or self.restart_count == 0:
            return self.state.waiting
        return Waiting(reason=CRASH_LOOP)


class PodCondition(Part):
    """One condition of the pod."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class _Status(Part):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    init_container_statuses: tuple[Container, ...] = ()
    container_statuses: tuple[Container, ...] = ()


class Pod(OfAttempt):
    """A pod of ours."""

    spec: _Spec = _Spec()
    status: _Status = _Status()

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
