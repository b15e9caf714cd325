"""`python -m bench.stage`: one stage at each cut against a plain loop; writes docs/benchmarks-stage.md."""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.stage.measure import peaks, time_epochs
from bench.stage.report import Figures, page, table
from bench.stage.work import Work, write_images
from bench.stage.workers import shares
from snowmelt_trainer.contract.optimization import Precision

DOCS = Path(__file__).parents[2] / "docs"
PAGE = {"cpu": DOCS / "benchmarks-stage.md", "cuda": DOCS / "benchmarks-stage-gpu.md"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stage", description=__doc__)
    parser.add_argument("--images", type=int, default=1250, help="training images (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="times that each case is timed (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="timed in a row each time (%(default)s)")
    parser.add_argument("--device", default="cpu", choices=[*PAGE], help="(%(default)s)")
    parser.add_argument("--architecture", default="resnet18", help="(%(default)s)")
    parser.add_argument("--image-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--precision", type=Precision, nargs="*", default=[Precision.FLOAT32, Precision.BFLOAT16])
    parser.add_argument("--workers", type=int, default=2, help="that share the threads; 1 measures none (%(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="whose memory is measured; or none (%(default)s)")
    parser.add_argument("--no-page", action="store_true", help="leave the page in docs/ as it is")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = {}
    with tempfile.TemporaryDirectory(prefix="snowmelt-stage-") as scratch:
        folder = Path(scratch)
        work = Work(
            write_images(folder / "images", options.images),
            architecture=options.architecture,
            image_size=options.image_size,
            threads=options.threads,
            epochs=options.epochs,
            device=options.device,
        )
        for precision in options.precision:
            epochs = time_epochs(work, precision, options.repeats, folder, lambda text: print(text, flush=True))
            memory = peaks(work, precision, options.processes, folder)
            sharing = options.workers if options.device == "cpu" else 1
            together = shares(work, precision, sharing, options.repeats) if sharing > 1 else []
            found[precision] = Figures(epochs, memory, together)
            print(table(found[precision]), flush=True)
    if not options.no_page:
        today = datetime.now(UTC).date()
        PAGE[options.device].write_text(
            page(found, work, images=options.images, workers=options.workers, today=today, load=load), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
