"""What Ray Train's controller and the leading worker say to each other of checkpoints, through an actor.

The controller asks for a checkpoint before it changes the number of workers, because a change starts all of them anew
from the newest one; and it counts checkpoints, to tell a run that gets on from one that only fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""How long the controller waits for the actor, which never has anything else to do."""


class _Desk:
    """Counts checkpoints, and keeps one request for the next."""

    def __init__(self) -> None:
        self._kept = 0
        self._asked_at: int | None = None

    def keep(self) -> None:
        self._kept += 1

    def kept(self) -> int:
        return self._kept

    def ask(self) -> None:
        self._asked_at = self._kept

    def withdraw(self) -> None:
        self._asked_at = None

    def is_open(self) -> bool:
        return self._asked_at == self._kept

    def is_answered(self) -> bool:
        return self._asked_at is not None and self._kept > self._asked_at


class Handover:
    """Both ends; it travels to other processes."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._question: Any = None

    def asked(self) -> bool:
        """The worker's: whether a checkpoint is waited for. Returns at once, with what was true at the last call."""
        question = self._question or self._desk.is_open.remote()
        self._question = question
        if not ray.wait([question], timeout=0)[0]:
            return False
        self._question = self._desk.is_open.remote()
        try:
            return bool(ray.get(question))
        except ray.exceptions.RayError as error:
            log.warning("nobody can ask for checkpoints any more: %s", error)
            return False

    def kept(self) -> None:
        """The worker's: a checkpoint lies in storage."""
        self._desk.keep.remote()
        self._question = None

    def ask(self) -> None:
        """The controller's: a checkpoint is wanted, soon."""
        self._desk.ask.remote()

    def withdraw(self) -> None:
        """The controller's: none is wanted any more."""
        self._desk.withdraw.remote()

    def answered(self) -> bool:
        """The controller's: whether a checkpoint was written since `ask`."""
        return bool(self._ask_desk(self._desk.is_answered, False))

    def count(self) -> int:
        """The controller's: how many checkpoints were written so far."""
        return int(self._ask_desk(self._desk.kept, 0))

    def _ask_desk(self, method: Any, otherwise: Any) -> Any:
        try:
            return ray.get(method.remote(), timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            log.warning("cannot hear of checkpoints: %s", error)
            return otherwise


@contextmanager
def handover() -> Iterator[Handover]:
    """One for this run, on the driver's node."""
    # Not soft: Ray puts what asks for no resource anywhere then, and it would go with the first worker's node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk: Any = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield Handover(desk)
    finally:
        ray.kill(desk)
