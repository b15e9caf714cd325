"""The aims that are missed, with what the curves say of each. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from bench.report.marks import time_to
from bench.report.results import Look, Run
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
    *,
    found: Sequence[Comparison],
    titles: Mapping[str, str],
) -> str:
    """Every aim that is not met, one a line."""
    by_subject = {comparison.subject: comparison for comparison in found}
    lines = [
        f"- {one.subject}, {one.aim.name}: {_why(one, by_subject[one.subject], titles)}"
        for one in judged
        if not one.met
    ]
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
        f"- {one.subject}, everything unfrozen beside the bare loop: {one}, the aim is at most {OVERHEAD:.0%}; "
        f"{one.trained:+.1%} until the last epoch's end, and what follows is the checkpoint, which the bare loop does "
        "not write"
        for one in overheads
        if not one.met
    ]
    return "\n".join(lines) if lines else "Of the cells that were run, none."


def _why(verdict: Verdict, comparison: Comparison, titles: Mapping[str, str]) -> str:
    runs = comparison.of(OURS, DEFAULTS)
    if math.isinf(verdict.ours.middle):
        best = [max(run.looks, key=lambda look: look.accuracy) for run in runs if run.looks]
        stages = ", ".join(sorted({look.trained for look in best}))
        cut = sum(run.cut_off for run in runs)
        end = f"{cut} of {len(runs)} fits were cut off" if cut else "every stage ended by itself"
        reached = ranged([look.accuracy for look in best], "{:.4f}")
        return f"not reached: the best was {reached} in stage {stages}, the mark is {verdict.mark:.4f}; {end}"
    ours, theirs = comparison.middle_pair(verdict.best.name, verdict.aim.column, verdict.mark)
    several = len({look.trained for look in _until(verdict.mark, ours)}) > 1
    reason = "what is trained first stays below it, so more had to be unfrozen; " if several else ""
    return (
        f"{verdict.share:.2f} of the best peer's time, the aim is {verdict.aim.share:.2f}; the mark is "
        f"{verdict.mark:.4f}: {reason}with seed {ours.seed} we came there by {way_to(verdict.mark, ours)}, and "
        f"{titles.get(theirs.contender, theirs.contender)} by {way_to(verdict.mark, theirs)}"
    )


def way_to(mark: float, run: Run) -> str:
    """How a fit came to the mark, or to its end without, one after the other of what it trained."""
    stages, began = [], 0.0
    for trained, group in groupby(_until(mark, run), key=lambda look: look.trained):
        looks = list(group)
        best, spent = max(looks, key=lambda look: look.accuracy), looks[-1].seconds - began
        many = f"{len(looks)} looks" if len(looks) > 1 else "one look"
        stages.append(f"{trained} ({best.accuracy:.4f} after {spent:.1f} s, {many})")
        began = looks[-1].seconds
    reached = math.isfinite(time_to(mark, run.looks))
    return ", then ".join(stages) + ("" if reached else ", and never further")


def _until(mark: float, run: Run) -> list[Look]:
    """The fit's looks up to the one that reaches the mark; all, where none does."""
    end = time_to(mark, run.looks)
    return [look for look in run.looks if look.seconds <= end]
