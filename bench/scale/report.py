"""The figures as a page of the documentation and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.report.machine import machine, versions
from bench.scale.measure import Cost, Task

CHART = "benchmarks-scale.svg"


def page(costs: Sequence[Cost], task: Task, *, today: date, load: float) -> str:
    """docs/benchmarks-scale.md."""
    return f"""# Benchmark: cost as the data grows

`make bench-scale` writes this page. Measured on {today.isoformat()}: {machine()}; load average before the start
{load:.1f}. {versions()}; {task.threads} thread(s).

{task.architecture} at {task.image_size} px on Fashion-MNIST, from 1,000 images to all 60,000, each size in a process of
its own, without Ray: every file is found, decoded once and hashed; the head is solved on what the frozen layers make of
the images; then the last block is trained for one epoch. Every tenth image is for validation. Activations may take
{task.cache_mib} MiB, the solver's copy of them included, and decoded images twice {task.decoded_mib} MiB; what does not
fit is computed, or decoded, again.

![seconds and memory over the number of images]({CHART})

{table(costs)}

{verdict(costs)}
"""


def table(costs: Sequence[Cost]) -> str:
    """One row a size."""
    names = [part.name for part in costs[0].parts]
    head = ["images", "reading, s", *(f"{name}, s" for name in names), "all, s", "ms an image", "processor ms an image"]
    head += [f"kept for {name}, MiB" for name in names]
    head += ["peak memory, MiB", "of these before the data"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for cost in costs:
        cells = [f"{cost.images:,}", f"{cost.reading:.1f}", *(f"{part.seconds:.1f}" for part in cost.parts)]
        cells += [f"{cost.seconds:.1f}", f"{1000 * cost.seconds / cost.images:.2f}"]
        cells += [f"{1000 * cost.processor / cost.images:.2f}"]
        cells += [f"{part.cached_mib:.0f}" if part.cached_mib else "nothing" for part in cost.parts]
        cells += [f"{cost.peak_mib:.0f}", f"{cost.start_mib:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(costs: Sequence[Cost]) -> str:
    """How far an image's cost and the memory move between the two largest sizes, and from the smallest."""
    first, before, last = costs[0], costs[-2], costs[-1]
    more = last.images / before.images
    return (
        f"From {before.images:,} to {last.images:,} images, {more:.2g} times as many, took "
        f"{last.seconds / before.seconds:.2f} times the time ({last.processor / before.processor:.2f} in processor "
        f"time) and {last.peak_mib / before.peak_mib:.2f} times the memory; from {first.images:,} on, "
        f"{last.images / first.images:.2g} times as many, {last.processor / first.processor:.2f} times the processor "
        f"time."
    )


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Two panels over the number of images: seconds by part, and memory.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl  # noqa: PLC0415  (only this function needs it)

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "snowmelt", "font.size": 9})
    from matplotlib import pyplot  # noqa: PLC0415

    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    images = [cost.images for cost in costs]
    parts = {"reading": [cost.reading for cost in costs]}
    parts |= {part.name: [cost.parts[i].seconds for cost in costs] for i, part in enumerate(costs[0].parts)}
    time.stackplot(images, list(parts.values()), labels=list(parts), alpha=0.8)
    time.plot(images, [cost.seconds for cost in costs], color="black", marker=".")
    time.set_ylabel("seconds")
    time.legend(loc="upper left")
    memory.plot(images, [cost.peak_mib for cost in costs], color="black", marker=".", label="peak of the process")
    memory.plot(images, [cost.start_mib for cost in costs], color="grey", linestyle=":", label="before the data")
    kept = [max(part.cached_mib for part in cost.parts) for cost in costs]
    memory.plot(images, kept, marker=".", label="activations kept, most of a stage")
    memory.set_ylabel("MiB")
    memory.legend()
    for panel in (time, memory):
        panel.set_xlabel("images")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
