"""Hands each snapshot on: to the operator, to a file, to the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus
from snowmelt_trainer.contract.reasons import Outcome

log = logging.getLogger(__name__)


@dataclass
class Announcer:
    """Numbers the snapshots of one attempt, whichever worker group they come from, and never lets the percentage go
    back."""

    attempt: int
    put: Callable[[Progress], None]
    file: TextIO | None = None
    newest: Progress | None = None
    first: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """The first number: milliseconds since 1970, so that a driver which is started anew in the same attempt, as KubeRay
    does when a head was lost, goes on above the numbers of the one before."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, progress: Progress) -> None:
        """Announces a snapshot. From a thread of the relay, or of the driver."""
        with self._lock:
            numbered = in_sequence(progress, self.newest, self.attempt, self.first)
            if self.newest is None or numbered.metrics != self.newest.metrics or numbered.stage != self.newest.stage:
                log.info("%s", one_line(numbered))
            self.newest = numbered
            self.put(numbered)
            self._write(numbered)

    def _write(self, progress: Progress) -> None:
        """Progress that cannot be written, as on a full disk, is never worth a training step."""
        if self.file is None:
            return
        try:
            self.file.write(progress.model_dump_json(by_alias=True, exclude_none=True) + "\n")
            self.file.flush()
        except OSError as error:
            log.warning("progress is no longer written to %s: %s", self.file.name, error)
            with suppress(OSError):  # what it could not write, it tries to write once more
                self.file.close()
            self.file = None

    def started(self) -> None:
        """Announces that the attempt is under way, before anything is known."""
        self(Progress(attempt=self.attempt, sequence=0, time=datetime.now(UTC), progress=ProgressStatus(percent=0)))

    def ended(self, record: FinalRecord) -> None:
        """Announces the attempt's last word."""
        now = datetime.now(UTC)
        newest = self.newest or Progress(attempt=self.attempt, sequence=0, time=now, progress=ProgressStatus(percent=0))
        progress = newest.progress.model_copy(update={"estimated_completion_time": None, "last_update_time": now})
        if record.outcome is Outcome.SUCCEEDED:
            progress = progress.model_copy(update={"percent": 100})
        self(newest.model_copy(update={"time": now, "progress": progress, "final": record}))


def in_sequence(progress: Progress, after: Progress | None, attempt: int, first: int) -> Progress:
    """The snapshot as the next one of the attempt."""
    percent = progress.progress.percent if after is None else max(progress.progress.percent, after.progress.percent)
    return progress.model_copy(
        update={
            "attempt": attempt,
            "sequence": first if after is None else after.sequence + 1,
            "progress": progress.progress.model_copy(update={"percent": percent}),
        }
    )


def one_line(progress: Progress) -> str:
    """A snapshot for the log."""
    parts = [f"{progress.progress.percent}%"]
    if progress.stage is not None:
        parts.append(
            f"stage {progress.stage.index}/{progress.stage.of} {progress.stage.name} epoch {progress.progress.epoch}"
        )
    parts += [f"{name} {value}" for name, value in progress.metrics.validation.items()]
    return ", ".join(parts)
