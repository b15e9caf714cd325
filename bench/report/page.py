"""docs/benchmarks.md. Pure, but for `write_report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.report.coverage import TITLE, apart, coverage, listed, measured
from bench.report.machine import versions
from bench.report.misses import misses
from bench.report.plot import draw
from bench.report.results import START_UP, Run, StartUp, read, read_start_up
from bench.report.tables import (
    accuracy_table,
    cache_table,
    contender_table,
    medians,
    memory_table,
    speed_table,
    verdict_table,
)
from bench.report.verdicts import (
    DEFAULTS,
    OURS,
    OVERHEAD,
    Comparison,
    OverheadVerdict,
    accuracy_verdict,
    comparisons,
    memory_verdicts,
    ours_first,
    overhead_verdict,
    verdicts,
)

QUIET = 0.5
"""Load average beyond the fit's own threads that still counts as a quiet machine."""


def write_report(results: Path, path: Path, titles: Mapping[str, str], rivals: Sequence[str]) -> Path:
    """Writes the page PATH.md and its plot PATH.svg; returns the page.

    Raises:
        SystemExit: when there are no results.
    """
    runs = read(results)
    if not runs:
        raise SystemExit(f"{results} holds no results yet")
    found = comparisons(runs, rivals)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot, written = path.with_suffix(".svg"), path.with_suffix(".md")
    draw(found, titles, plot)
    start_up = read_start_up(results.parent / START_UP)
    file, folder = results.resolve(), path.parent.resolve()
    rows = str(file.relative_to(folder)) if file.is_relative_to(folder) else ""
    text = page(runs, found, titles, start_up=start_up, plot=plot.name, rows=rows)
    written.write_text(text, encoding="utf-8")
    return written


def page(
    runs: Sequence[Run],
    found: Sequence[Comparison],
    titles: Mapping[str, str],
    *,
    start_up: StartUp | None = None,
    plot: str = "benchmarks.svg",
    rows: str = "",
) -> str:
    """All of it follows from what the results say, so that a page can be checked against them, for which it names their
    file `rows` where it lies beside."""
    judged = [one for comparison in found for one in verdicts(comparison)]
    accuracies = [one for one in map(accuracy_verdict, found) if one is not None]
    overheads = [one for one in map(overhead_verdict, found) if one is not None]
    memory = [one for comparison in found for one in memory_verdicts(comparison)]
    entries = list(dict.fromkeys((run.contender, run.column) for run in runs))
    entries.sort(key=lambda entry: (entry[1] != DEFAULTS, ours_first(entry[0])))
    sections = [
        _head(runs, plot, rows),
        "## What misses its aim\n\n" + misses(judged, accuracies, memory, overheads, found=found, titles=titles),
        "## Ours against the best peer\n\nMedians over the cells:\n\n"
        + medians(judged)
        + "\n\n"
        + verdict_table(judged, titles),
        "## Final test accuracy\n\n" + accuracy_table(accuracies),
        "## Peak memory\n\nOf a fit with its network, beyond what its process had before.\n\n" + memory_table(memory),
        "## Overhead with everything unfrozen\n\n" + overhead(overheads),
        "## From `snowmelt run` to the first step\n\n" + _start_up(start_up),
        *(_subject(comparison, entries, titles) for comparison in found),
        f"## {TITLE}\n\n" + coverage(runs),
        "## Fits that failed\n\n" + failures(runs),
        METHOD,
    ]
    return "\n\n".join(sections) + "\n"


def _head(runs: Sequence[Run], plot: str, rows: str) -> str:
    done = [run for run in runs if not run.error]
    known = {name: text for run in done for name, text in run.versions.items()}
    noisy = [run for run in done if run.load > run.threads + QUIET]
    quiet = (
        f"**The machine was not quiet**: in {len(noisy)} of {len(done)} fits its load average exceeded the fit's "
        "own threads, so seconds of the wall clock say little there; processor time is the steadier figure."
        if noisy
        else "The machine was quiet."
    )
    threads = ", ".join(sorted({str(run.threads) for run in done}))
    return f"""# Benchmark: Snowmelt and its peers

`make bench` writes this page. {measured(runs)}; threads: {threads};
{versions(known)}. {quiet}{rows and f" Every fit is a line of [{rows}]({rows})."}

{apart(runs)}

![validation accuracy over seconds]({plot})

Thick and black: Snowmelt, a dot for each look. Dotted: peers with our precision and memory format."""


def overhead(verdicts: Sequence[OverheadVerdict]) -> str:
    lines = [f"- {one.subject}: {one} (seeds {listed(one.seeds)})" for one in verdicts]
    if not lines:
        return "Not run."
    said = "Ours writes a checkpoint and builds the network within that time, the bare loop does not."
    return f"Aim: at most {OVERHEAD:.0%}. {said}\n\n" + "\n".join(lines)


def _subject(comparison: Comparison, entries: Sequence[tuple[str, str]], titles: Mapping[str, str]) -> str:
    marks = comparison.marks
    aims = (
        "Full fine-tuning was not run here, so there are no marks."
        if marks is None
        else f"Full fine-tuning ends at {marks.full:.4f} (standard error {marks.error:.4f}): "
        f"mark 1 is {marks.first:.4f}, mark 2 is {marks.second:.4f}."
    )
    example = comparison.runs[0]
    data = next((run for run in comparison.runs if not run.error), example)
    return f"""## {comparison.subject}

{data.train_images:,} images to train on, {data.validation_images:,} to look at, {data.test_images:,} to test; {aims}

{contender_table(comparison, entries, titles)}

{speed_table(comparison, entries, titles)}

The cache of the frozen layers' activations, in Snowmelt's runs:

{cache_table(comparison, OURS, DEFAULTS)}"""


def _start_up(found: StartUp | None) -> str:
    if found is None:
        return "Not measured."
    lines = [f"- {seconds:.1f} s: {part.replace('ours:', '**ours**:')}" for part, seconds in found.parts.items()]
    return f"On {found.machine}; Snowmelt at {found.revision}:\n\n" + "\n".join(lines)


def failures(runs: Sequence[Run]) -> str:
    lines = [
        f"- {run.subject}, seed {run.seed}, {run.contender} ({run.column}): {run.error}" for run in runs if run.error
    ]
    return "\n".join(lines) if lines else "None."


METHOD = """## How it is measured

- Every fit runs in a process of its own; which contender begins a round changes from seed to seed, and every other
  round runs backwards.
- All start from the same weights, pretrained by `bench/tasks/pretraining.py` on five classes of Fashion-MNIST (sandal,
  shirt, sneaker, bag, ankle boot; ViT-B/16 too short to be any good). *near* is the other five classes, *far* is
  scikit-learn's digits, *shifted* is the five known classes inverted, at half the contrast and with noise. No contender
  augments.
- The clock starts with the fit, when the network is built and the data set is listed (ours builds its network within
  the clock); images are decoded in the course of it. Imports and what comes before the fit are the column "imports;
  start-up". Ray's start is in the start-up of the peer in Ray Train; ours is called without Ray, as the one worker of
  its process, by the function that each worker of `snowmelt run` calls.
- Everyone is looked at by the same function on the same validation images; both clocks stand still meanwhile. Everyone
  is looked at after each epoch (ours when its own trainer evaluates, which is more often where its epochs run on
  cached activations: more looks, more chances of a lucky one; and after the first epochs of everything a look of ours
  is at two heads, of which it keeps the better). Filling the cache counts on our clock, that of the
  validation images included. The marks are of validation accuracy; the test images are used once, at the end, on what
  each delivers (ours: the best epoch by validation).
- "Processor s" is user and system time of the process and its children. Memory is the peak of the resident memory
  during the fit less what was resident at its start, where the peers have their network already, and ours has not
  (under "Peak memory" full fine-tuning's network, 4 bytes a parameter, is added); on a GPU it is the most that torch
  had allocated there.
- The stopping rule: everyone follows their own schedule for the same number of epochs where they plan by epochs (of
  ViT-B/16, three at most; ours goes by its product's defaults), and is cut off after a multiple of the time that full
  fine-tuning took.
- *defaults*: float32, torch's own memory format, images decoded in each epoch. *matched*: our precision on this
  machine, channels_last, images decoded once.
- Times are medians over the seeds, with the range in brackets; "never" counts as longer than anything. Ours is compared
  with a peer seed by seed, since the machine may be faster for one seed than for the next: "ours / peer" is the median
  of these ratios over the seeds that both ran, and the best peer is the one with the largest. Overhead and peak memory
  are compared over those seeds, too."""
