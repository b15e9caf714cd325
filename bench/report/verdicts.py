"""Ours against the best peer, cell by cell, and whether the aims are met. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from bench.report.marks import Clock, Marks, Times, confidence, marks_of, processors, time_to, times_to, wall
from bench.report.results import Run, Subject, subjects

OURS, OURS_EVERYTHING, REFERENCE = "ours", "ours-everything", "plain"
OVERHEAD = 0.03
"""With everything unfrozen, at most so much over the bare loop."""
DEFAULTS, MATCHED = "defaults", "matched"


@dataclass(frozen=True)
class Aim:
    """What ours is to reach: a mark within a share of the best peer's time."""

    name: str
    mark: Callable[[Marks], float]
    column: str
    """Which peers."""
    share: float


AIMS = (
    Aim("mark 1", lambda marks: marks.first, DEFAULTS, 1 / 5),
    Aim("mark 1, peers matched", lambda marks: marks.first, MATCHED, 1),
    Aim("mark 2", lambda marks: marks.second, DEFAULTS, 1 / 3),
    Aim("mark 2, peers matched", lambda marks: marks.second, MATCHED, 1 / 2),
)


@dataclass(frozen=True)
class Comparison:
    """All runs of one subject."""

    subject: Subject
    runs: tuple[Run, ...]
    rivals: frozenset[str]

    def of(self, contender: str, column: str) -> list[Run]:
        """Its fits that did not fail, by seed."""
        found = [run for run in self.runs if (run.contender, run.column) == (contender, column) and not run.error]
        return sorted(found, key=lambda run: run.seed)

    def pairs(self, ours: tuple[str, str], theirs: tuple[str, str]) -> list[tuple[Run, Run]]:
        """The fits of two contenders, each by name and column, in the rounds that both ran: the two of a seed ran on
        one machine, as fast for one as for the other; that of another seed may be another."""
        by_seed = {run.seed: run for run in self.of(*theirs)}
        return [(run, by_seed[run.seed]) for run in self.of(*ours) if run.seed in by_seed]

    @cached_property
    def marks(self) -> Marks | None:
        """None as long as full fine-tuning was not run."""
        reference = self.of(REFERENCE, DEFAULTS)
        return marks_of(reference) if reference else None

    def times(self, contender: str, column: str, mark: float, clock: Clock = wall) -> Times:
        return times_to(mark, self.of(contender, column), clock)

    def share(self, contender: str, column: str, mark: float, clock: Clock = wall) -> float | None:
        """Our time to a mark as a share of a contender's, the median over the rounds that both ran; None where there is
        none."""
        pairs = self.pairs((OURS, DEFAULTS), (contender, column))
        return median(share_in(pair, mark, clock) for pair in pairs) if pairs else None

    def middle_pair(self, contender: str, column: str, mark: float) -> tuple[Run, Run]:
        """Our fit and the contender's in the round whose share is the median, of two the larger. Both ran one."""
        pairs = self.pairs((OURS, DEFAULTS), (contender, column))
        return sorted(pairs, key=lambda pair: share_in(pair, mark))[len(pairs) // 2]

    def best_peer(self, column: str, mark: float, clock: Clock = wall) -> Rival | None:
        """The rival of whose time ours takes the largest share, of equals the one that gets there soonest and most
        often; None when none ran a seed that ours ran."""
        found = [
            Rival(name, self.times(name, column, mark, clock), share)
            for name in sorted(self.rivals)
            if (share := self.share(name, column, mark, clock)) is not None
        ]
        return max(found, key=lambda one: (one.share, -one.times.middle, one.times.often), default=None)


@dataclass(frozen=True)
class Rival:
    """A peer on one subject."""

    name: str
    times: Times
    share: float
    """Our time as a share of theirs (see `Comparison.share`); infinite when we never reach the mark, 0 when only they
    never do."""


@dataclass(frozen=True)
class Verdict:
    """One aim on one subject."""

    aim: Aim
    subject: Subject
    mark: float
    ours: Times
    best: Rival
    """By the wall clock."""
    processor_share: float
    """Ours of the best peer's in processor time, which other work on the machine hardly changes."""

    @property
    def share(self) -> float:
        return self.best.share

    @property
    def met(self) -> bool:
        return self.share <= self.aim.share


@dataclass(frozen=True)
class AccuracyVerdict:
    """Final test accuracy of ours against full fine-tuning's."""

    subject: Subject
    ours: float
    full: float
    allowance: float
    """Half the width of the 95% confidence interval of the difference."""

    @property
    def met(self) -> bool:
        return self.ours >= self.full - self.allowance


@dataclass(frozen=True)
class MemoryVerdict:
    """Peak memory of ours against full fine-tuning's, its network included, in MiB."""

    subject: Subject
    column: str
    """Which full fine-tuning."""
    ours: float
    full: float

    @property
    def met(self) -> bool:
        return self.ours <= self.full


@dataclass(frozen=True)
class OverheadVerdict:
    """One worker of ours with everything unfrozen beside the bare loop with the same precision and memory format."""

    subject: Subject
    wall: float
    """Share of the bare loop's seconds that is added."""
    trained: float
    """The same until the last epoch was trained and looked at; what follows is the checkpoint's writing."""
    processors: float
    """The whole fit's, of processor time."""
    seeds: tuple[int, ...]

    @property
    def met(self) -> bool:
        return self.wall <= OVERHEAD

    def __str__(self) -> str:
        return f"{self.wall:+.1%} by the wall clock, {self.processors:+.1%} in processor time"


def ours_first(contender: str) -> tuple[bool, str]:
    """What contenders are sorted by."""
    return not contender.startswith(OURS), contender


def comparisons(runs: Sequence[Run], rivals: Collection[str]) -> list[Comparison]:
    return [
        Comparison(subject, tuple(run for run in runs if run.subject == subject), frozenset(rivals))
        for subject in subjects(runs)
    ]


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Every aim for which ours and a peer were run."""
    marks = comparison.marks
    if marks is None or not comparison.of(OURS, DEFAULTS):
        return []
    found = []
    for aim in AIMS:
        mark = aim.mark(marks)
        best = comparison.best_peer(aim.column, mark)
        quickest = comparison.best_peer(aim.column, mark, processors)
        if best is None or quickest is None:
            continue
        ours = comparison.times(OURS, DEFAULTS, mark)
        found.append(Verdict(aim, comparison.subject, mark, ours, best, quickest.share))
    return found


def share_in(pair: tuple[Run, Run], mark: float, clock: Clock = wall) -> float:
    """Our time to a mark as a share of theirs, in one round."""
    ours, theirs = pair
    return share_of(time_to(mark, ours.looks, clock), time_to(mark, theirs.looks, clock))


def share_of(ours: float, theirs: float) -> float:
    """Ours over theirs. Infinite when we never get there; 0 when only they never do."""
    if math.isinf(ours):
        return math.inf
    return ours / theirs if theirs else math.inf


def accuracy_verdict(comparison: Comparison) -> AccuracyVerdict | None:
    """None as long as one of the two was not run."""
    ours, full = comparison.of(OURS, DEFAULTS), comparison.of(REFERENCE, DEFAULTS)
    if not ours or not full:
        return None
    reached = median(run.test for run in full)
    return AccuracyVerdict(
        comparison.subject, median(run.test for run in ours), reached, confidence(reached, full[0].test_images)
    )


def memory_verdicts(comparison: Comparison) -> list[MemoryVerdict]:
    """One for each way in which full fine-tuning was run: medians over the rounds that both ran."""
    found = []
    for column in (DEFAULTS, MATCHED):
        pairs = comparison.pairs((OURS, DEFAULTS), (REFERENCE, column))
        if pairs:
            ours = median(run.memory_mib for run, _ in pairs)
            full = median(run.memory_mib + run.network_mib for _, run in pairs)
            found.append(MemoryVerdict(comparison.subject, column, ours, full))
    return found


def overhead_verdict(comparison: Comparison) -> OverheadVerdict | None:
    """Medians over the rounds that both ran; None as long as there is none."""
    pairs = comparison.pairs((OURS_EVERYTHING, MATCHED), (REFERENCE, MATCHED))
    if not pairs:
        return None
    return OverheadVerdict(
        comparison.subject,
        wall=median(ours.seconds / bare.seconds for ours, bare in pairs) - 1,
        trained=median(ours.looks[-1].seconds / bare.looks[-1].seconds for ours, bare in pairs) - 1,
        processors=median(ours.cpu_seconds / bare.cpu_seconds for ours, bare in pairs) - 1,
        seeds=tuple(sorted(ours.seed for ours, _ in pairs)),
    )
