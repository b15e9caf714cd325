"""`make bench`: ours and its peers on one machine, in one run; writes docs/benchmarks.md and its plot.

Results are added to a file cell by cell; a run that was ended goes on where it was when started again on the same
machine. The rows behind the page in the repository are in docs/benchmarks (`--out docs/benchmarks`).
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench.peers.contenders import CONTENDERS, REFERENCE, RIVALS, TITLES
from bench.peers.protocol import Column
from bench.report.machine import here
from bench.report.page import write_report
from bench.suite import startup
from bench.suite.order import Cell, Entry, Subject, cells, left, seconds_left
from bench.suite.runner import FILE, Runner
from bench.tasks.images import TaskName
from bench.tasks.pretraining import RECIPES
from bench.tasks.task import task_of

REPOSITORY = Path(__file__).parents[2]
FIRST = Entry(REFERENCE, Column.DEFAULTS)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench BENCH_ARGS=", description=__doc__)
    made.add_argument("--architectures", nargs="+", default=[*RECIPES], choices=[*RECIPES], metavar="NAME")
    made.add_argument("--tasks", nargs="+", default=[*TaskName], choices=[*TaskName], metavar="TASK")
    made.add_argument("--image-sizes", nargs="+", type=int, default=[64, 112], metavar="PIXELS")
    made.add_argument("--seeds", type=int, default=5, help="how many")
    made.add_argument("--first-seed", type=int, default=0)
    made.add_argument("--contenders", nargs="+", default=[one.name for one in CONTENDERS], metavar="NAME")
    made.add_argument("--columns", nargs="+", default=[*Column], choices=[*Column], metavar="COLUMN")
    made.add_argument("--epochs", type=int, default=6, help="of full fine-tuning, and of whoever plans by epochs")
    made.add_argument("--cut-off", type=float, default=2.5, help="a fit ends after so many times the reference's time")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--out", type=Path, help="folder of the results (out/bench or out/bench-cuda)")
    made.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    made.add_argument("--report-only", action="store_true", help="write the page from the results that there are")
    return made


def wanted_cells(options: argparse.Namespace) -> list[Cell]:
    """The suite that the options name."""
    subjects = [
        Subject(architecture, task, size)
        for size in options.image_sizes
        for architecture in options.architectures
        for task in options.tasks
    ]
    entries = [
        Entry(one.name, column)
        for column in options.columns
        for one in CONTENDERS
        if one.name in options.contenders and column in one.columns
    ]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return list(cells(subjects, entries, seeds, first=FIRST))


def measure(options: argparse.Namespace, out: Path, name: str) -> None:
    """Carries out what is left of the suite, and shows how far it is."""
    where = here("" if options.device == "cpu" else torch.cuda.get_device_name(options.device))
    runner = Runner(
        out,
        logs=REPOSITORY / "out" / name / "log",
        where=where,
        epochs=options.epochs,
        cut_off=options.cut_off,
        threads=options.threads,
        device=options.device,
    )
    wanted = wanted_cells(options)
    if options.device == "cpu" and not (out / startup.FILE).exists():
        print("from `snowmelt run` to the first step:", flush=True)
        subject = wanted[0].subject
        task = task_of(TaskName(subject.task), subject.architecture, subject.image_size)
        for part, seconds in startup.measure(task, out, where).items():
            print(f"  {seconds:6.1f} s  {part}", flush=True)
    remaining = left(wanted, runner.done())
    print(f"{len(wanted)} fits, {len(remaining)} of them left; results: {runner.file}", flush=True)
    while remaining:
        cell, *remaining = remaining
        said = runner.run(cell)
        ahead = seconds_left(remaining, runner.took)
        until = "" if ahead is None else f"; {len(remaining)} left, about {ahead / 60:.0f} min"
        print(f"{datetime.now(UTC):%H:%M:%S} {said}{until}", flush=True)


def main() -> None:
    options = parser().parse_args()
    name = "bench" if options.device == "cpu" else f"bench-{options.device}"
    out = options.out or REPOSITORY / "out" / name
    if not options.report_only:
        measure(options, out, name)
    elif not (out / FILE).exists():
        raise SystemExit(
            f"{out / FILE}: no results there yet: run without --report-only, or give their folder by --out"
        )
    page = "benchmarks" if options.device == "cpu" else "benchmarks-gpu"
    print(f"wrote {write_report(out / FILE, options.docs / page, TITLES, RIVALS)}")


if __name__ == "__main__":
    main()
