"""`snowmelt run`: follows a run on this machine from start to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from snowmelt_cli.local_run import LocalRun, TrainerProcess
from snowmelt_cli.view import LiveView, PlainView, View, result_lines
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_trainer.contract.progress import FinalRecord, Progress, Result
from snowmelt_trainer.contract.reasons import Outcome

SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130


def follow(job: FineTuneJob, run: LocalRun, console: Console) -> int:
    """Runs the job to its end, or until Ctrl-C, and gives the exit status."""
    title = f"{job.metadata.name} · {job.spec.backbone.architecture}"
    console.print(Text(f"log: {run.log}", style="dim"), soft_wrap=True)
    with _terminated_like_interrupted():
        process = TrainerProcess(run)
        newest: Progress | None = None
        try:
            with view_of(title, console) as view:
                for progress in process.snapshots():
                    newest = progress or newest
                    if newest is not None:
                        view.show(newest, state=_state(newest), now=datetime.now(UTC))
        except KeyboardInterrupt:
            console.print("stopping the trainer …")
            process.stop()
            console.print(f"stopped. {_how_to_resume(newest)}", soft_wrap=True)
            return INTERRUPTED
        finally:
            process.stop()
    return _conclude(newest.final if newest is not None else None, process, run, console)


@contextmanager
def view_of(title: str, console: Console) -> Iterator[View]:
    """A live panel on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield PlainView(title, console)
        return
    with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        yield LiveView(title, live)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM stops us as Ctrl-C does, so that no trainer is left behind."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _state(progress: Progress) -> str:
    if progress.final is not None:
        return progress.final.outcome
    return "Running" if progress.stage is not None else "Starting: reading the data and starting Ray"


def _how_to_resume(newest: Progress | None) -> str:
    checkpoint = newest.checkpoint if newest is not None else None
    if checkpoint is None:
        return "There is no checkpoint yet: the same command starts anew."
    return f"The same command goes on from stage {checkpoint.stage}, epoch {checkpoint.epoch} (--fresh starts anew)."


def _conclude(final: FinalRecord | None, process: TrainerProcess, run: LocalRun, console: Console) -> int:
    if final is None:
        console.print(process.last_words(), style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print(
            f"[red]Failed[/red]  the trainer ended (exit status {process.exit_status}) without a final record; "
            f"these are the last lines of {run.log}",
            soft_wrap=True,
        )
        return FAILED
    _line(console, "green" if final.outcome is Outcome.SUCCEEDED else "red", final.outcome, final.reason)
    _line(console, "", "", final.message)
    if final.outcome is Outcome.FAILED:
        _line(console, "dim", "log", str(run.log))
        return FAILED
    if final.result is not None:
        _print_result(final.result, run, console)
    return SUCCEEDED


def _print_result(result: Result, run: LocalRun, console: Console) -> None:
    _line(console, "bold", "model", f"{run.output / 'model.safetensors'}")
    _line(console, "", "sha256", result.sha256)
    _line(console, "", "metrics", f"{run.output / 'metrics.json'}")
    for data, metrics in result_lines(result):
        _line(console, "", data, metrics)


def _line(console: Console, style: str, label: str, text: str) -> None:
    console.print(Text.assemble((f"{label:<12}", style), text), soft_wrap=True)
