"""When, where and with whom each cell was measured. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from bench.report.results import Run, Subject, subjects
from bench.report.verdicts import DEFAULTS, MATCHED, OURS, ours_first

PAUSE = timedelta(hours=2)
"""Fits of a round that lie further apart were not made in one run."""
TITLE = "What was run"


@dataclass(frozen=True)
class Round:
    """The fits of one seed on one subject, which are compared with one another."""

    subject: Subject
    seed: int
    fits: tuple[Run, ...]

    @property
    def machine(self) -> str:
        return self.fits[0].machine

    @property
    def apart(self) -> bool:
        """Whether its fits were made hours apart."""
        return _has_pause([fit.at for fit in self.fits])

    def of(self, column: str) -> str:
        """The contenders of a column, ours first."""
        names = {fit.contender for fit in self.fits if fit.column == column}
        return ", ".join(sorted(names, key=ours_first))


def rounds(runs: Iterable[Run]) -> list[Round]:
    """In the order in which their first fits stand."""
    found: dict[tuple[Subject, int], list[Run]] = {}
    for run in runs:
        found.setdefault(run.round, []).append(run)
    return [Round(subject, seed, tuple(fits)) for (subject, seed), fits in found.items()]


def measured(runs: Sequence[Run]) -> str:
    """When, where, and what of ours."""
    days = sorted({f"{run.at:%Y-%m-%d}" for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    revisions = ", ".join(dict.fromkeys(run.revision for run in runs if run.contender == OURS and run.revision))
    by_machine = Counter(one.machine for one in rounds(runs))
    if len(by_machine) == 1:
        where = next(iter(by_machine))
    else:
        counts = "; ".join(f"{number} on {machine}" for machine, number in by_machine.items())
        where = f"several machines, each round (a cell with a seed) on one: {counts}"
    return f"Measured on {when}: {where}; Snowmelt at {revisions or 'no known commit'}"


def apart(runs: Sequence[Run]) -> str:
    """Whether what is compared was measured together."""
    every = rounds(runs)
    some = [one for one in every if one.apart]
    if not some:
        return "The fits of each seed were made one after the other."
    return (
        f"**Not one run**: {PAUSE.seconds // 3600} hours and more lie between fits of {len(some)} of {len(every)} "
        f'rounds, so that the machine may have been faster or slower; the table under "{TITLE}" says which.'
    )


def coverage(runs: Sequence[Run]) -> str:
    """Which contenders ran in which cell, with which seeds and where, as a table."""
    order = subjects(runs)
    lines: dict[tuple[Subject, str], list[int]] = {}
    for one in sorted(rounds(runs), key=lambda one: (order.index(one.subject), one.seed)):
        lines.setdefault((one.subject, _cells(one)), []).append(one.seed)
    return "\n".join(
        [
            "| cell | seeds | machine | with their defaults | with our precision and memory format | in one run |",
            "|---|---|---|---|---|---|",
            *(f"| {subject} | {listed(seeds)} | {cells} |" for (subject, cells), seeds in lines.items()),
        ]
    )


def _cells(one: Round) -> str:
    machine = one.machine.partition(" (")[0]
    in_one_run = "**no**" if one.apart else "yes"
    return " | ".join([machine, one.of(DEFAULTS) or "none", one.of(MATCHED) or "none", in_one_run])


def listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _has_pause(ends: Sequence[datetime]) -> bool:
    return any(later - sooner > PAUSE for sooner, later in pairwise(sorted(ends)))
