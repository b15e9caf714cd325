"""The figures as a page of the documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from statistics import fmean, stdev

from scipy.stats import t as students_t

from bench.cached.fits import CASES, Case, Outcome
from bench.report.machine import machine, versions

Found = Mapping[Case, Sequence[Outcome]]
"""By case, one outcome a seed."""
CONFIDENCE = 0.95


def page(found: Found, *, title: str, epochs: int, today: date, load: float) -> str:
    """docs/benchmarks-cache.md."""
    seeds = len(next(iter(found.values())))
    return f"""# Benchmark: accuracy with the activation cache and without

`make bench-cache` writes this page. Measured on {today.isoformat()}: {machine()}; load average before the start
{load:.1f}. {versions()}.

{title}, from the weights of `make bench`, {seeds} seeds: {epochs} epochs of the head, then {epochs} of the last group
and the head. The same seed, the same order of images and the same variations in each row; what differs is whether the
frozen layers' outputs are computed in each epoch (`cache.mode: Never`) or kept. The difference is that of fits of the
same seed, with its {CONFIDENCE:.0%} confidence interval (Student's t).

{table(found)}
"""


def table(found: Found) -> str:
    """One row a case."""
    lines = [
        "| augmentation | cache | test accuracy, mean (range) | difference from Never | zero is inside | kept, MB "
        "| seconds a fit |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        accuracy = [one.test for one in found[case]]
        cells = [
            case.augmentation.value,
            case.name,
            f"{fmean(accuracy):.4f} ({min(accuracy):.4f} to {max(accuracy):.4f})",
        ]
        cells += ["", ""] if case.reference else _compared(accuracy, [one.test for one in found[_reference(case)]])
        kept = max(one.kept for one in found[case])
        cells += [f"{kept / 1e6:.1f}" if kept else "nothing", f"{fmean(one.seconds for one in found[case]):.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The mean of at least two differences, and how far the confidence interval reaches to either side.

    >>> interval([0.0, 0.0, 0.0])
    (0.0, 0.0)
    """
    count = len(differences)
    quantile = float(students_t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return fmean(differences), quantile * stdev(differences) / math.sqrt(count)


def _reference(case: Case) -> Case:
    return next(one for one in CASES if one.reference and one.augmentation is case.augmentation)


def _compared(accuracy: Sequence[float], reference: Sequence[float]) -> list[str]:
    mean, half = interval([one - other for one, other in zip(accuracy, reference, strict=True)])
    return [f"{mean:+.4f} ± {half:.4f}", "yes" if abs(mean) <= half else "**no**"]
