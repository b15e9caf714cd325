"""A run as people see it: a live panel on a terminal, plain lines elsewhere. Asks no clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snowmelt_operator.progress.display import duration_cell, metric_cell
from snowmelt_trainer.contract.progress import MetricsStatus, ProgressStatus, Result, StageRow, StageStatus

BAR_WIDTH = 30
WARNING = "yellow"


class Snapshot(Protocol):
    """What a run says of itself: a `Progress` of the trainer's, or the status of a FineTuneJob."""

    @property
    def stage(self) -> StageStatus | None: ...
    @property
    def progress(self) -> ProgressStatus | None: ...
    @property
    def metrics(self) -> MetricsStatus | None: ...
    @property
    def stages(self) -> tuple[StageRow, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


class View(Protocol):
    """Shows one snapshot after another."""

    def show(self, snapshot: Snapshot, *, state: str, now: datetime) -> None:
        """`state` says in few words what goes on around the training."""


class LiveView:
    """A panel that is drawn anew at each snapshot, and stays when the run is over."""

    def __init__(self, title: str, live: Live) -> None:
        self._title = title
        self._live = live

    def show(self, snapshot: Snapshot, *, state: str, now: datetime) -> None:
        self._live.update(panel(self._title, snapshot, state=state, now=now))


class PlainView:
    """A line for each thing that is new: for logs, pipes and screen readers."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._said: set[str] = set()
        self._workers: int | None = None

    def show(self, snapshot: Snapshot, *, state: str, now: datetime) -> None:
        for fact, line in ((state, f"{self._title}: {state}"), *facts(snapshot, now=now)):
            if fact not in self._said:
                self._said.add(fact)
                self._print(line)
        workers = snapshot.progress.workers if snapshot.progress is not None else None
        if workers is not None and self._workers not in (None, workers):
            self._print(f"{self._title}: {self._workers} workers became {workers}")
        self._workers = workers or self._workers

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def panel(title: str, snapshot: Snapshot, *, state: str, now: datetime) -> RenderableType:
    """All of a run: finished stages as a table, the one under way, its metrics, warnings."""
    parts: list[RenderableType] = [Text.assemble((title, "bold"), "  ", (state, _style(state)))]
    if snapshot.stages:
        parts.append(stage_table(snapshot.stages))
    if snapshot.progress is not None and snapshot.stage is not None:
        parts.append(_under_way(snapshot.stage, snapshot.progress, now))
    if snapshot.metrics is not None and (measured := _metrics(snapshot.metrics)):
        parts.append(Text("  " + measured))
    parts += [Text(f"  ! {warning}", style=WARNING) for warning in snapshot.warnings]
    return Group(*parts)


def facts(snapshot: Snapshot, *, now: datetime) -> Iterator[tuple[str, str]]:
    """The same as facts, each with the line that tells it; a fact that is known need not be told again."""
    for warning in snapshot.warnings:
        yield warning, f"warning: {warning}"
    for row in snapshot.stages:
        yield (
            f"ended {row.index}",
            (
                f"stage {row.index} {row.name} ended ({row.ended}): {row.epochs} epochs, "
                f"{duration_cell(timedelta(seconds=row.seconds))}{_joined(', ', row.metrics)}"
            ),
        )
    stage, progress = snapshot.stage, snapshot.progress
    if stage is None or progress is None:
        return
    where = f"stage {stage.index}/{stage.of} {stage.name}"
    yield f"began {stage.index}", f"{where}: {_share(stage)} parameters are trained"
    if snapshot.metrics is not None and (measured := _metrics(snapshot.metrics)):
        yield measured, f"{progress.percent:3}%  {where}: {measured}{_eta(progress, now)}"


def stage_table(rows: tuple[StageRow, ...]) -> Table:
    """Finished stages, a row each."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    table.add_column("")
    table.add_column("STAGE")
    for heading in ("TRAINED", "EPOCHS", "TIME", "IMAGES/S"):
        table.add_column(heading, justify="right")
    table.add_column("VALIDATION")
    table.add_column("ENDED")
    for row in rows:
        table.add_row(
            Text("✓", style="green"),
            f"{row.index} {row.name}",
            f"{row.trainable_parameters:,}",
            str(row.epochs),
            duration_cell(timedelta(seconds=row.seconds)),
            f"{row.samples_per_second:,.0f}" if row.samples_per_second is not None else "",
            ", ".join(f"{name} {_short(value)}" for name, value in row.metrics.items()),
            row.ended,
        )
    return table


def result_lines(result: Result) -> Iterator[tuple[str, str]]:
    """What the delivered model reaches, as (data, metrics) pairs; test data only where the job has some."""
    for data, metrics in (("validation", result.validation), ("test", result.test)):
        if metrics:
            yield data, ", ".join(f"{name} {_short(value)}" for name, value in metrics.items())


def _under_way(stage: StageStatus, progress: ProgressStatus, now: datetime) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    speed = f"{progress.samples_per_second:,.0f} images/s" if progress.samples_per_second is not None else ""
    workers = f"{progress.workers} workers" if progress.workers is not None and progress.workers > 1 else ""
    grid.add_row(
        Text("▸", style="cyan"),
        Text(f"{stage.index}/{stage.of} {stage.name}", style="bold"),
        f"{_share(stage)} trained",
        f"epoch {progress.epoch}",
        ProgressBar(total=100, completed=progress.percent, width=BAR_WIDTH),
        f"{progress.percent}%",
        speed,
        workers,
        _eta(progress, now).strip(),
    )
    return grid


def _share(stage: StageStatus) -> str:
    share = stage.trainable_parameters / max(stage.total_parameters, 1)
    return f"{stage.trainable_parameters:,} of {stage.total_parameters:,} ({share:.1%})"


def _metrics(metrics: MetricsStatus) -> str:
    parts = [f"train {name} {_short(value)}" for name, value in metrics.train.items()]
    parts += [f"validation {name} {_short(value)}" for name, value in metrics.validation.items()]
    if metrics.best is not None:
        parts.append(f"best {metric_cell(metrics.best)} (stage {metrics.best.stage}, epoch {metrics.best.epoch})")
    return " · ".join(parts)


def _joined(separator: str, metrics: dict[str, str]) -> str:
    return "".join(f"{separator}{name} {_short(value)}" for name, value in metrics.items())


def _short(value: str) -> str:
    return f"{float(value):.4g}"


def _eta(progress: ProgressStatus, now: datetime) -> str:
    end = progress.estimated_completion_time
    return f"  ETA {duration_cell(end - now)}" if end is not None else ""


def _style(state: str) -> str:
    word = state.partition(":")[0].partition(" ")[0]
    return {"Succeeded": "green", "Failed": "red", "Suspended": WARNING}.get(word, "cyan")
