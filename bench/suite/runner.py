"""One fit after the other, each in a process of its own, and the file of results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers.contenders import OURS, REFERENCE
from bench.peers.protocol import Column
from bench.report.machine import Where
from bench.suite.cell import Order, as_document
from bench.suite.order import Cell, Entry, Subject
from bench.tasks.images import TaskName
from bench.tasks.task import Task, task_of

FILE = "results.jsonl"
SHORT = {"vit_b_16": 3}
"""Most epochs of networks that a processor takes minutes for each."""
MOST_SECONDS = 3600.0
"""A process that takes longer hangs."""


class Runner:
    """Carries out cells and appends what they measured to OUT/results.jsonl."""

    def __init__(
        self, out: Path, *, logs: Path, where: Where, epochs: int, cut_off: float, threads: int, device: str = "cpu"
    ) -> None:
        for folder in (out, logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.file, self.log, self._where = out / FILE, logs, where
        self.took: dict[Cell, float] = {}
        """Seconds of wall clock of each fit of this run, evaluations and start-up included."""
        self._most_epochs, self._cut_off, self._threads, self._device = epochs, cut_off, threads, device

    def done(self) -> list[Cell]:
        """What was measured on this machine already, by the same rule; failed fits are tried again."""
        cells = ((_cell(row), row) for row in self._rows_from_here() if "error" not in row)
        return [cell for cell, row in cells if row["epochs"] == self._epochs(cell.subject)]

    def run(self, cell: Cell, task: Task | None = None) -> str:
        """One fit; returns a line that says how it went. `task` is found by the cell's names where it is not given."""
        subject = cell.subject
        task = task or task_of(TaskName(subject.task), subject.architecture, subject.image_size)
        order = Order(
            task={name: _plain(value) for name, value in asdict(task).items()},
            contender=cell.entry.contender,
            column=Column(cell.entry.column),
            seed=cell.seed,
            epochs=self._epochs(subject),
            seconds=self._limit(subject),
            threads=self._threads,
            device=self._device,
        )
        load, began = os.getloadavg()[0], time.monotonic()
        result = self._in_a_process(order, cell)
        self.took[cell] = time.monotonic() - began
        row = (
            cell.key
            | asdict(self._where)
            | {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "epochs": order.epochs,
                "limitSeconds": order.seconds,
                "threads": self._threads,
                "loadBefore": load,
                "loadAfter": os.getloadavg()[0],
            }
        )
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | result) + "\n")
        return _said(cell, result)

    def _epochs(self, subject: Subject) -> int:
        return min(self._most_epochs, SHORT.get(subject.architecture, self._most_epochs))

    def _limit(self, subject: Subject) -> float | None:
        """Seconds after which every fit on the subject ends; None for the reference's first, which they follow from."""
        for row in self._rows_from_here():
            cell = _cell(row)
            if (
                cell.subject == subject
                and cell.entry == Entry(REFERENCE, Column.DEFAULTS)
                and "error" not in row
                and row["epochs"] == self._epochs(subject)
            ):
                return float(row["figures"]["seconds"]) * self._cut_off
        return None

    def _rows_from_here(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        rows = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["machine"] == self._where.machine]

    def _in_a_process(self, order: Order, cell: Cell) -> dict[str, Any]:
        name = "-".join(str(value) for value in cell.key.values())
        with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
            ordered, result = Path(folder) / "order.json", Path(folder) / "result.json"
            ordered.write_text(as_document(order), encoding="utf-8")
            environment = os.environ | {"OMP_NUM_THREADS": str(self._threads), "RAY_USAGE_STATS_ENABLED": "0"}
            with (self.log / f"{name}.log").open("wb") as log:
                try:
                    ended = subprocess.run(
                        [sys.executable, "-m", "bench.suite.cell", ordered, result],
                        stdout=log,
                        stderr=log,
                        env=environment,
                        timeout=MOST_SECONDS,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    return {"error": f"no end after {MOST_SECONDS:.0f} s"}
            if not result.exists():
                return {"error": f"the process ended with {ended.returncode}; see {log.name}"}
            read: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return read


def _cell(row: dict[str, Any]) -> Cell:
    subject = Subject(row["architecture"], row["task"], row["image_size"])
    return Cell(subject, Entry(row["contender"], row["column"]), row["seed"])


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _said(cell: Cell, result: dict[str, Any]) -> str:
    subject, entry = cell.subject, cell.entry
    name = f"{subject.architecture} {subject.task} {subject.image_size} px, seed {cell.seed}: {entry.contender}"
    column = "" if entry.contender == OURS else f" ({entry.column})"
    if "error" in result:
        return f"{name}{column} FAILED: {result['error']}"
    figures = result["figures"]
    return (
        f"{name}{column} {figures['seconds']:.1f} s ({figures['cpuSeconds']:.1f} s of processors), "
        f"validation {result['validation']:.4f}, test {result['test']:.4f}"
        f"{', cut off' if figures['cutOff'] else ''}"
    )
