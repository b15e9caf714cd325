"""`python -m bench.operator`: many FineTuneJobs against a real API server."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.operator.measure import REPOSITORY, Figures, measure
from bench.operator.report import idle_table, page, requests_table, summary
from hack.kube import BinariesMissingError, ControlPlaneError

PAGE = REPOSITORY / "docs" / "benchmarks-operator.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="FineTuneJobs to apply (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, each with a new control plane (%(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="how long to watch it idle (%(default)s)")
    parser.add_argument("--no-page", action="store_true", help=f"leave docs/{PAGE.name} as it is")
    options = parser.parse_args()
    # Ended from outside, it takes its servers with it as after a Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs: list[Figures] = []
    try:
        for number in range(options.repeats):
            with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
                runs.append(measure(Path(folder), jobs=options.jobs, idle_seconds=options.idle_seconds))
            print(f"run {number + 1} of {options.repeats}\n\n{summary(runs[-1:], options.jobs)}\n", flush=True)
    except (BinariesMissingError, ControlPlaneError, TimeoutError) as error:
        print(f"bench.operator: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        print(f"bench.operator: {group.exceptions[0]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"all runs\n\n{summary(runs, options.jobs)}\n\n{requests_table(runs)}\n\nidle: {idle_table(runs)}")
    if not options.no_page:
        today = datetime.now(UTC).date()
        PAGE.write_text(page(runs, jobs=options.jobs, idle_seconds=options.idle_seconds, today=today), encoding="utf-8")
        print(f"\nwritten to {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
