"""`python -m bench.scale`: a fit at each of several sizes; writes docs/benchmarks-scale.md and its chart."""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.scale.measure import Cost, Task, measure
from bench.scale.report import CHART, draw, page, table
from hack.data.fashion_mnist import SOURCE, write

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 15000, 30000, 60000])
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for the page and its chart (%(default)s)")
    options = parser.parse_args()
    load, costs = os.getloadavg()[0], list[Cost]()
    with tempfile.TemporaryDirectory(prefix="snowmelt-scale-") as scratch:
        folder = Path(scratch)
        write(SOURCE, folder / "images", max(options.sizes))
        task = Task(str(folder / "images" / "train"), threads=options.threads)
        for size in sorted(options.sizes):
            costs.append(measure(task, size, folder / str(size)))
            print(f"{size} images: {costs[-1].seconds:.1f} s, {costs[-1].peak_mib:.0f} MiB", flush=True)
    print(table(costs))
    today = datetime.now(UTC).date()
    (options.out / "benchmarks-scale.md").write_text(page(costs, task, today=today, load=load), encoding="utf-8")
    draw(costs, options.out / CHART)


if __name__ == "__main__":
    main()
