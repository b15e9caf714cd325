"""Checkpoints as they appear, seen from outside: what was trained, and whether anything was trained twice."""

from __future__ import annotations

import threading
from pathlib import Path

from tests_e2e.product.folders import Folder
from tests_e2e.product.jobs import Job

LOOKS_EVERY_S = 0.05


class CheckpointWatch:
    """Notes every checkpoint that appears under a job's output. A context manager."""

    def __init__(self, output: Folder) -> None:
        self._output = output
        self._seen: dict[tuple[str, int], None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def names(self) -> list[str]:
        """Names in order of appearance; one that was written twice stands there twice. Names sort as training goes."""
        return [name for name, _ in self._seen]

    def __enter__(self) -> CheckpointWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._look()
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOKS_EVERY_S):
            self._look()

    def _look(self) -> None:
        found = self._output.found(".snowmelt/*/checkpoints/s*")
        for one in sorted((Path(checkpoint).name, inode) for checkpoint, inode in found.items()):
            self._seen.setdefault(one)


def trained_once(watch: CheckpointWatch, job: Job) -> bool:
    """Whether no epoch that had its checkpoint was trained again."""
    return bool(watch.names) and watch.names == sorted(set(watch.names)) and job.epochs() > 0
