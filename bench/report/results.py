"""The file of results, parsed once into types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

START_UP = "startup.json"
_PARAMETERS = re.compile(r"([\d.]+)M parameters")
UNKNOWN = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Subject:
    """What contenders are compared on."""

    architecture: str
    task: str
    image_size: int

    def __str__(self) -> str:
        return f"{self.architecture}, {self.task}, {self.image_size} px"


@dataclass(frozen=True)
class Look:
    """One look at the validation data; seconds leave evaluations out."""

    seconds: float
    cpu_seconds: float
    samples: int
    accuracy: float
    trained: str


@dataclass(frozen=True)
class CacheRow:
    """What the trainer says of one stage's cache."""

    stage: str
    bytes: int
    build_seconds: float
    saved_seconds: float
    reason: str


@dataclass(frozen=True)
class Run:
    """One fit."""

    subject: Subject
    contender: str
    column: str
    seed: int
    epochs: int
    limit_seconds: float | None
    """The fit ended there at the latest."""
    load: float
    """The larger of the machine's load averages before and after; a fit adds about as much as it has threads."""
    threads: int
    at: datetime = UNKNOWN
    """When it had ended."""
    machine: str = ""
    revision: str = ""
    """Of this repository."""
    looks: tuple[Look, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    cut_off: bool = False
    validation: float = 0.0
    """Accuracy of what is delivered."""
    test: float = 0.0
    validation_images: int = 0
    test_images: int = 0
    train_images: int = 0
    memory_mib: float = 0.0
    """Peak of the resident memory during the fit, less what was resident at its start."""
    network_mib: float = 0.0
    """Beside that, a peer's network, which was there at the start; 0 for ours, which builds its own within the fit."""
    peak_mib: float = 0.0
    import_seconds: float = 0.0
    start_up_seconds: float = 0.0
    bfloat16: bool = False
    stage_speeds: tuple[tuple[str, float], ...] = ()
    """Training images a second, stage by stage, where the contender says so itself."""
    caches: tuple[CacheRow, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def round(self) -> tuple[Subject, int]:
        """What it is compared within: its subject and its seed."""
        return self.subject, self.seed


def read(file: Path) -> list[Run]:
    """Every fit in the file; of one that was tried again, the last try. In the file's order."""
    return parse(file.read_text(encoding="utf-8").splitlines()) if file.exists() else []


@dataclass(frozen=True)
class StartUp:
    """How long one `snowmelt run` took to its first step and to its end."""

    machine: str
    revision: str
    parts: Mapping[str, float]
    """Seconds of each, in their order."""


def read_start_up(file: Path) -> StartUp | None:
    """None where it was not measured."""
    return StartUp(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def parse(lines: Iterable[str]) -> list[Run]:
    """As `read`, from the lines. Fits of another number of epochs than the subject's last are left out, and those on
    other machines than most of their round: only what one machine did is compared."""
    runs = [_run(json.loads(line)) for line in lines]
    epochs = {run.subject: run.epochs for run in runs}
    last = {
        (run.round, run.machine, run.contender, run.column): run for run in runs if run.epochs == epochs[run.subject]
    }
    machines = _machines(list(last.values()))
    return [run for run in last.values() if run.machine == machines[run.round]]


def _machines(runs: Sequence[Run]) -> dict[tuple[Subject, int], str]:
    """Where most of each round was measured; of several machines that did as much, the one that was the last to."""
    rounds: dict[tuple[Subject, int], dict[str, list[Run]]] = {}
    for run in runs:
        rounds.setdefault(run.round, {}).setdefault(run.machine, []).append(run)
    return {one: max(machines, key=lambda name: _weight(machines[name])) for one, machines in rounds.items()}


def _weight(runs: Sequence[Run]) -> tuple[int, datetime]:
    return sum(not run.error for run in runs), max(run.at for run in runs)


def subjects(runs: Sequence[Run]) -> list[Subject]:
    """In the order of their first runs."""
    return list(dict.fromkeys(run.subject for run in runs))


def _run(row: dict[str, Any]) -> Run:
    run = Run(
        subject=Subject(row["architecture"], row["task"], row["image_size"]),
        contender=row["contender"],
        column=row["column"],
        seed=row["seed"],
        epochs=row["epochs"],
        limit_seconds=row["limitSeconds"],
        load=max(row["loadBefore"], row["loadAfter"]),
        threads=row["threads"],
        at=datetime.fromisoformat(row["at"]),
        machine=row["machine"],
        revision=row["revision"],
        error=row.get("error", ""),
    )
    return run if run.error else _measured(run, row)


def _measured(run: Run, row: dict[str, Any]) -> Run:
    figures = row["figures"]
    stages = figures.get("stages", [])
    return replace(
        run,
        looks=tuple(Look(**point) for point in row["points"]),
        seconds=figures["seconds"],
        cpu_seconds=figures["cpuSeconds"],
        cut_off=figures["cutOff"],
        validation=row["validation"],
        test=row["test"],
        validation_images=row["validationImages"],
        test_images=row["testImages"],
        train_images=row["trainImages"],
        memory_mib=figures["peakMemoryMiB"] - figures["memoryBeforeMiB"],
        network_mib=_network_mib(row["points"]) if figures["memoryBeforeMiB"] else 0.0,
        peak_mib=figures["peakMemoryMiB"],
        import_seconds=row["importSeconds"],
        start_up_seconds=row["startUpSeconds"],
        bfloat16=row["bfloat16"],
        stage_speeds=tuple((f"{one['index']}: {one['name']}", one["samplesPerSecond"]) for one in stages),
        caches=tuple(
            CacheRow(
                f"{one['index']}: {one['name']}",
                one["cache"]["bytes"],
                one["cache"]["buildSeconds"],
                one["cache"]["savedSeconds"],
                one["cache"]["reason"],
            )
            for one in stages
            if one.get("cache")
        ),
        versions=row["versions"],
    )


def _network_mib(points: Sequence[Mapping[str, Any]]) -> float:
    """Of the parameters that a peer trained, when it trained most of them, in float32."""
    trained = (_PARAMETERS.fullmatch(point["trained"]) for point in points)
    return max((float(one[1]) for one in trained if one), default=0.0) * 4e6 / 2**20
