"""The figures as a page of the documentation. Pure, but for what it reads of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median

import torch

from bench.report.machine import machine, versions
from bench.stage.measure import Epochs
from bench.stage.work import CASES, SHORT, Work
from snowmelt_trainer.contract.optimization import Precision


@dataclass(frozen=True)
class Figures:
    """All that was measured in one precision, by the order of CASES."""

    epochs: list[Epochs]
    memory: list[list[int]]
    """Bytes, by process; none where it was not measured."""
    together: list[float] = field(default_factory=list)
    """Throughput of several workers as a share of the plain loop's, by repeat."""


def page(found: Mapping[Precision, Figures], work: Work, *, images: int, workers: int, today: date, load: float) -> str:
    """docs/benchmarks-stage.md."""
    tables = "\n\n".join(
        f"## {precision.value}\n\n{table(figures)}\n\n{together(figures, workers)}"
        for precision, figures in found.items()
    )
    first = next(iter(found.values()))
    repeats = len(first.epochs[0].seconds)
    return f"""# Benchmark: one stage against a plain loop

`make bench-stage` writes this page. Measured on {today.isoformat()}: {machine(_accelerator())}; load
average before the start {load:.1f}. {versions()}; {work.threads} thread(s).

{work.architecture} at {work.image_size} px, {images:,} images of Fashion-MNIST, a tenth of them for validation, batches
of {work.batch_size}, no augmentation, one worker, no Ray. All cases run in one process and take turns, {repeats} times;
each time is that of {work.epochs} whole epochs with their validation (short ones: {SHORT}), and of ours also with their
checkpoints on disk, the last one's waited for. The plain loop has
our precision and memory format (channels_last) and torchvision's network as it comes (of ours, on a processor,
convolutions of small maps are matrix products and max pools keep little), reads its images from the device's
memory, decoded and normalised, and writes nothing. "Times as fast" is the median of the ratios to
the plain loop in the same repeat, with the smallest and the largest in brackets; on a machine that others use, the
ratios of processor time are the steadier ones. Memory is the most that a new process had
in two epochs, {"resident" if work.device == "cpu" else "allocated on the device"}; of each case
{len(first.memory[0])} were started.

{tables}
"""


def table(figures: Figures) -> str:
    """One row a case."""
    plain = figures.epochs[0]
    lines = [
        "| an epoch | seconds | times as fast | in processor time | aim | first epoch, s | cache: MiB, s to fill "
        "| peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, epochs, memory in zip(CASES, figures.epochs, figures.memory, strict=True):
        ratios = [one / other for one, other in zip(plain.seconds, epochs.seconds, strict=True)]
        worked = [one / other for one, other in zip(plain.processor, epochs.processor, strict=True)]
        cache = epochs.cache
        kept = f"{cache.bytes / 2**20:.1f}, {cache.build_seconds:.2f}" if case.cached and cache else ""
        most = spread([each / 2**20 for each in memory], digits=4) if memory else "not measured"
        aim = f"{case.aim:.3g}" if case.aim is not None else ""
        lines.append(
            f"| {case.name} | {spread(epochs.seconds)} | {spread(ratios)} | {spread(worked)} | {aim} "
            f"| {epochs.first:.2f} | {kept} | {most} |"
        )
    return "\n".join(lines)


def together(figures: Figures, workers: int) -> str:
    """What several workers do with the cores of the plain loop."""
    if not figures.together:
        return "Several workers were not measured."
    return (
        f"{workers} workers that train everything, in processes of their own with an equal part of the threads: "
        f"{spread(figures.together)} of the throughput of the plain loop with all of them (checkpoints, which may take "
        "a hundredth of the processors' time, apart); aim: at least 0.9."
    )


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The median, and the smallest and largest in brackets, to so many digits."""
    return f"{median(values):.{digits}g} ({min(values):.{digits}g}-{max(values):.{digits}g})"


def _accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
