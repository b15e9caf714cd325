"""The aims that are missed, with what the curves say of each. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from bench.report.marks import time_to, times_to
from bench.report.results import Run
from bench.report.tables import ranged
from bench.report.verdicts import (
    DEFAULTS,
    OURS,
    OVERHEAD,
    AccuracyVerdict,
    Comparison,
    MemoryVerdict,
    OverheadVerdict,
    Verdict,
)


def misses(
    judged: Sequence[Verdict],
    accuracies: Sequence[AccuracyVerdict],
    memory: Sequence[MemoryVerdict],
    overheads: Sequence[OverheadVerdict],
    found: Sequence[Comparison],
) -> str:
    """Every aim that is not met, one a line."""
    by_subject = {comparison.subject: comparison for comparison in found}
    lines = [f"- {one.subject}, {one.aim.name}: {_why(one, by_subject[one.subject])}" for one in judged if not one.met]
    lines += [
        f"- {one.subject}, test accuracy: ours {one.ours:.4f}, full fine-tuning {one.full:.4f}, and only "
        f"{one.allowance:.4f} less is within the confidence interval"
        for one in accuracies
        if not one.met
    ]
    lines += [
        f"- {one.subject}, peak memory: ours {one.ours:.0f} MiB, full fine-tuning ({one.column}) {one.full:.0f}"
        for one in memory
        if not one.met
    ]
    lines += [
        f"- {one.subject}, everything unfrozen: {one.wall:+.1%} beside the bare loop by the wall clock, "
        f"{one.processors:+.1%} in processor time, the aim is at most {OVERHEAD:.0%}; {one.trained:+.1%} until the "
        "last epoch's end, and what follows is the checkpoint, which the bare loop does not write"
        for one in overheads
        if not one.met
    ]
    return "\n".join(lines) if lines else "Of the cells that were run, none."


def _why(verdict: Verdict, comparison: Comparison) -> str:
    runs = comparison.of(OURS, DEFAULTS)
    if math.isinf(verdict.ours.middle):
        best = [max(run.looks, key=lambda look: look.accuracy) for run in runs if run.looks]
        stages = ", ".join(sorted({look.trained for look in best}))
        cut = sum(run.cut_off for run in runs)
        end = f"{cut} of {len(runs)} fits were cut off" if cut else "every stage ended by itself"
        reached = ranged([look.accuracy for look in best], "{:.4f}")
        return f"not reached: the best was {reached} in stage {stages}, the mark is {verdict.mark:.4f}; {end}"
    shares = f"{verdict.share:.2f} of the best peer's time, the aim is {verdict.aim.share:.2f}"
    return f"{shares}; the mark is {verdict.mark:.4f}, and {way_to(verdict.mark, runs)}"


def way_to(mark: float, runs: Sequence[Run]) -> str:
    """How the fit with the middle time came to the mark, stage by stage. At least one has reached it."""
    quickest_first = sorted(runs, key=lambda run: (time_to(mark, run.looks), run.seed))
    run = quickest_first[(times_to(mark, runs).reached - 1) // 2]
    end = time_to(mark, run.looks)
    stages, began = [], 0.0
    for trained, group in groupby((look for look in run.looks if look.seconds <= end), key=lambda look: look.trained):
        looks = list(group)
        best, spent = max(looks, key=lambda look: look.accuracy), looks[-1].seconds - began
        stages.append(f"stage {trained} came to {best.accuracy:.4f} in {spent:.1f} s, by look {1 + looks.index(best)}")
        began = looks[-1].seconds
    return f"with seed {run.seed} {', '.join(stages)}"
