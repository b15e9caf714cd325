"""What is run, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """What contenders are compared on."""

    architecture: str
    task: str
    image_size: int


@dataclass(frozen=True)
class Entry:
    """A contender as it is set up."""

    contender: str
    column: str


@dataclass(frozen=True)
class Cell:
    """One fit."""

    subject: Subject
    entry: Entry
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """As it stands in the file of results."""
        return asdict(self.subject) | asdict(self.entry) | {"seed": self.seed}


def alternated(entries: Sequence[Entry], seed: int, first: Entry | None) -> list[Entry]:
    """The order in a round: each round begins with another entry, every other one runs backwards. So whatever drifts
    meets all alike. `first`, where it is given, comes first: the others' limit of time follows from it."""
    turned = [*entries[seed % len(entries) :], *entries[: seed % len(entries)]]
    if seed % 2:
        turned.reverse()
    if first in turned:
        turned.sort(key=lambda entry: entry != first)
    return turned


def cells(
    subjects: Sequence[Subject], entries: Sequence[Entry], seeds: Sequence[int], *, first: Entry | None = None
) -> Iterator[Cell]:
    """Every fit of the suite: seed by seed over all subjects, so that a suite cut short has whole rounds. With `first`
    the rounds of the first seed begin."""
    for seed in seeds:
        for subject in subjects:
            for entry in alternated(entries, seed, first if seed == seeds[0] else None):
                yield Cell(subject, entry, seed)


def left(wanted: Sequence[Cell], done: Collection[Cell]) -> list[Cell]:
    """What a rerun still has to do."""
    finished = set(done)
    return [cell for cell in wanted if cell not in finished]


def seconds_left(remaining: Sequence[Cell], took: dict[Cell, float]) -> float | None:
    """From the mean of what each entry took on the same subject, else of all fits; None before the first."""
    if not took:
        return None
    overall = sum(took.values()) / len(took)

    def expected(cell: Cell) -> float:
        same = [
            seconds for other, seconds in took.items() if (other.subject, other.entry) == (cell.subject, cell.entry)
        ]
        return sum(same) / len(same) if same else overall

    return sum(map(expected, remaining))
