"""The small interface behind which KubeRay and Ray stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from snowmelt_operator.api.run import Run
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.api.v1alpha1 import FineTuneJob, ObjectMeta
from snowmelt_trainer.contract.run import RunConfig


@dataclass(frozen=True)
class Launch:
    """One attempt to be started."""

    job: FineTuneJob
    attempt: int
    config: RunConfig
    token: str


class LauncherError(Exception):
    """A launcher did not do what it was asked to; the message is for people."""


class LauncherUnavailableError(LauncherError):
    """The launcher cannot be reached, or not act yet: the same request may succeed later."""


class LaunchRefusedError(LauncherError):
    """This attempt will never be accepted as it is."""


class Launcher(Protocol):
    """Starts, finds and stops attempts. Every method raises `LauncherError`."""

    def name(self, job: ObjectMeta, attempt: int) -> str:
        """What the attempt is called where it runs."""
        ...

    async def launch(self, launch: Launch) -> None:
        """Start an attempt; one that exists already counts as started."""
        ...

    async def find(self, job: ObjectMeta, attempt: int) -> Run | None:
        """The attempt as it is now; None only when it certainly does not exist."""
        ...

    def newest(self, job: ObjectMeta) -> int:
        """The newest attempt that the launcher has heard of; 0 for none. Finds what was launched and never recorded."""
        ...

    async def troubles(self, job: ObjectMeta, attempt: int) -> tuple[Trouble, ...]:
        """What is wrong with the attempt's pods, and what happened to them; empty where there are none to look at."""
        ...

    async def last_words(self, job: ObjectMeta, attempt: int) -> LastWords | None:
        """The end of the log of whichever container of the attempt ended last; None where it cannot be had."""
        ...

    async def stop(self, job: ObjectMeta, attempt: int) -> None:
        """Stop an attempt; one that is not there counts as stopped."""
        ...

    async def ask_for_workers(self, job: ObjectMeta, attempt: int, count: int) -> None:
        """Ask for room for so many workers of a running attempt; what is asked for already stays so."""
        ...

    async def refresh(self) -> None:
        """List everything anew."""
        ...

    async def sweep(self, living: set[str]) -> None:
        """Stop what the last `refresh` found and what belongs to none of these FineTuneJobs (uids).

        They must have been listed after that refresh: else a job launched in between would be taken for an orphan.
        """
        ...


Wake = Callable[[str, str], None]
"""Called with namespace and name of a FineTuneJob that is to be looked at."""
