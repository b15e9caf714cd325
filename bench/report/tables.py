"""Tables of the page, in Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median

from bench.report.marks import Times, processors
from bench.report.results import Look, Run
from bench.report.verdicts import AccuracyVerdict, Comparison, MemoryVerdict, Verdict

NEVER, NONE = "never", "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def ranged(values: Sequence[float], form: str = "{:.1f}") -> str:
    """The median and, of several, the range."""
    if not values:
        return NONE
    middle = median(values)
    text = NEVER if math.isinf(middle) else form.format(middle)
    if len(values) == 1:
        return text
    low, high = min(values), max(values)
    end = NEVER if math.isinf(high) else form.format(high)
    return text if math.isinf(low) else f"{text} ({form.format(low)} to {end})"


def share(value: float) -> str:
    """As a fraction of one: 1/4.0; above one: 1.3 times."""
    if math.isinf(value):
        return "not reached"
    if value == 0:
        return "peers never"
    return f"1/{1 / value:.1f}" if value <= 1 else f"{value:.2f} times"


def answer(met: bool) -> str:
    return "yes" if met else "**no**"


def times_cell(times: Times) -> str:
    seeds = f", {times.reached} of {len(times.values)} seeds" if times.reached < len(times.values) else ""
    return ranged(times.values) + seeds


def verdict_table(found: Sequence[Verdict], titles: Mapping[str, str]) -> str:
    return table(
        ["cell", "aim", "mark", "ours, s", "best peer, s", "ours / peer", "in processor time", "aim", "met"],
        [
            [
                str(one.subject),
                one.aim.name,
                f"{one.mark:.4f}",
                times_cell(one.ours),
                f"{times_cell(one.best.times)}: {titles.get(one.best.name, one.best.name)}",
                share(one.share),
                share(one.processor_share),
                f"at most {share(one.aim.share)}" if one.aim.share < 1 else "never above",
                answer(one.met),
            ]
            for one in found
        ],
    )


def medians(found: Sequence[Verdict]) -> str:
    """Each aim's median over the cells, by which the suite as a whole is judged."""
    lines = []
    for aim in dict.fromkeys(one.aim for one in found):
        shares = [one.share for one in found if one.aim == aim]
        met = sum(one.met for one in found if one.aim == aim)
        lines.append(
            f"- {aim.name}: ours over the best peer {share(median(shares))}, met in {met} of {len(shares)} cells"
        )
    return "\n".join(lines)


def accuracy_table(found: Sequence[AccuracyVerdict]) -> str:
    return table(
        ["cell", "ours", "full fine-tuning", "allowance", "met"],
        [
            [
                str(one.subject),
                f"{one.ours:.4f}",
                f"{one.full:.4f}",
                f"{one.allowance:.4f}",
                answer(one.met),
            ]
            for one in found
        ],
    )


def memory_table(found: Sequence[MemoryVerdict]) -> str:
    return table(
        ["cell", "full fine-tuning set up", "ours, MiB", "full fine-tuning, MiB", "met"],
        [[str(one.subject), one.column, f"{one.ours:.0f}", f"{one.full:.0f}", answer(one.met)] for one in found],
    )


def contender_table(comparison: Comparison, entries: Sequence[tuple[str, str]], titles: Mapping[str, str]) -> str:
    """Everyone on one subject: medians and ranges over the seeds."""
    marks = comparison.marks
    rows = []
    for name, column in entries:
        runs = comparison.of(name, column)
        if not runs:
            continue
        first, second, first_cpu, second_cpu = (NONE,) * 4
        if marks is not None:
            first = times_cell(comparison.times(name, column, marks.first))
            second = times_cell(comparison.times(name, column, marks.second))
            first_cpu = ranged(comparison.times(name, column, marks.first, processors).values)
            second_cpu = ranged(comparison.times(name, column, marks.second, processors).values)
        rows.append(
            [
                titles.get(name, name),
                column,
                str(len(runs)),
                first,
                second,
                f"{first_cpu}; {second_cpu}",
                ranged([run.seconds for run in runs]) + (", cut off" if any(run.cut_off for run in runs) else ""),
                ranged([run.validation for run in runs], "{:.4f}"),
                ranged([run.test for run in runs], "{:.4f}"),
                ranged([run.memory_mib for run in runs], "{:.0f}"),
                f"{ranged([run.import_seconds for run in runs])}; {ranged([run.start_up_seconds for run in runs])}",
                ranged([run.load for run in runs]),
            ]
        )
    header = ["contender", "set up", "seeds", "mark 1, s", "mark 2, s", "processor s to the marks", "whole fit, s"]
    header += ["validation", "test", "memory, MiB", "imports; start-up, s", "load"]
    return table(header, rows)


def speed_table(comparison: Comparison, entries: Sequence[tuple[str, str]], titles: Mapping[str, str]) -> str:
    """Training images a second, by what is trained."""
    rows = []
    for name, column in entries:
        for trained, speed in speeds(comparison.of(name, column)).items():
            rows.append([titles.get(name, name), column, trained, ranged(speed, "{:.0f}")])
    return table(["contender", "set up", "trained", "images/s"], rows)


def speeds(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Of each stage, images a second in each run."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for trained, speed in run.stage_speeds or segments(run.looks):
            found.setdefault(trained, []).append(speed)
    return found


def segments(looks: Sequence[Look]) -> list[tuple[str, float]]:
    """Images a second between the first and the last look at each thing trained; the time before the first counts to
    what was trained first."""
    found = []
    before = Look(0.0, 0.0, 0, 0.0, "")
    for trained, group in groupby(looks, key=lambda look: look.trained):
        last = list(group)[-1]
        seconds = last.seconds - before.seconds
        if seconds > 0 and last.samples > before.samples:
            found.append((trained, (last.samples - before.samples) / seconds))
        before = last
    return found


def cache_table(comparison: Comparison, name: str, column: str) -> str:
    """Each stage's cache in each run of ours."""
    return table(
        ["seed", "stage", "MB", "built in, s", "saved, s", "why"],
        [
            [
                str(run.seed),
                cache.stage,
                f"{cache.bytes / 1e6:.1f}",
                f"{cache.build_seconds:.1f}",
                f"{cache.saved_seconds:.1f}",
                cache.reason,
            ]
            for run in comparison.of(name, column)
            for cache in run.caches
        ],
    )
