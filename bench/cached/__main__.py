"""`python -m bench.cached`: the same fits with the activation cache and without; writes docs/benchmarks-cache.md."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench.cached.fits import CASES, Case, Outcome, fit
from bench.cached.report import page, table
from bench.tasks.images import TaskName
from bench.tasks.pretraining import RECIPES
from bench.tasks.task import task_of

PAGE = Path(__file__).parents[2] / "docs/benchmarks-cache.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-cache BENCH_ARGS=", description=__doc__)
    parser.add_argument("--architecture", default="resnet18", choices=[*RECIPES], help="(%(default)s)")
    parser.add_argument("--task", type=TaskName, default=TaskName.NEAR, choices=[*TaskName], help="(%(default)s)")
    parser.add_argument("--image-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2 (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of each stage (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="(%(default)s)")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: a difference and its interval need at least 2")
    load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    task = task_of(options.task, options.architecture, options.image_size)
    found: dict[Case, list[Outcome]] = defaultdict(list)
    for seed in range(options.seeds):
        for case in CASES:
            outcome = fit(task, case, seed, options.epochs)
            found[case].append(outcome)
            name = f"seed {seed}, augmentation {case.augmentation.value}, cache {case.name}"
            print(f"{name}: test {outcome.test:.4f}, {outcome.seconds:.1f} s", flush=True)
    print(table(found))
    title = f"{options.architecture} at {options.image_size} px on the task *{options.task.value}*"
    today = datetime.now(UTC).date()
    options.page.write_text(page(found, title=title, epochs=options.epochs, today=today, load=load), encoding="utf-8")


if __name__ == "__main__":
    main()
