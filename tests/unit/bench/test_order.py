"""Which fits are run, in which order, and what a rerun still has to do."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.suite.order import Cell, Entry, Subject, alternated, cells, left, seconds_left

SUBJECTS = (Subject("resnet18", "near", 64), Subject("resnet18", "far", 64))
ENTRIES = tuple(Entry(name, "defaults") for name in ("plain", "ours", "fastai", "fts"))


def test_every_round_has_everyone_once_and_another_begins() -> None:
    rounds = [alternated(ENTRIES, seed, None) for seed in range(4)]
    assert all(sorted(one, key=str) == sorted(ENTRIES, key=str) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 4


def test_every_other_round_runs_backwards() -> None:
    assert alternated(ENTRIES, 0, None) == list(ENTRIES)
    assert [entry.contender for entry in alternated(ENTRIES, 1, None)] == ["plain", "fts", "fastai", "ours"]


@pytest.mark.parametrize("seeds", [range(2), range(3, 5)])
def test_the_reference_comes_first_in_the_first_round_alone(seeds: range) -> None:
    reference = ENTRIES[2]
    rounds = {
        seed: [cell for cell in cells(SUBJECTS[:1], ENTRIES, seeds, first=reference) if cell.seed == seed]
        for seed in seeds
    }
    first, second = rounds.values()
    assert first[0].entry == reference
    assert [cell.entry for cell in second] == alternated(ENTRIES, seeds[1], None)


def test_a_suite_cut_short_has_whole_rounds() -> None:
    order = [cell.seed for cell in cells(SUBJECTS, ENTRIES, range(3))]
    assert order == sorted(order)
    assert Counter(order) == dict.fromkeys(range(3), len(SUBJECTS) * len(ENTRIES))


def test_a_rerun_does_what_is_missing_in_the_same_order() -> None:
    wanted = list(cells(SUBJECTS, ENTRIES, range(2)))
    assert left(wanted, [wanted[0], wanted[5]]) == wanted[1:5] + wanted[6:]
    assert left(wanted, wanted) == []


def test_the_time_left_follows_from_the_same_fit_of_another_seed() -> None:
    slow, quick = ENTRIES[:2]
    took = {Cell(SUBJECTS[0], slow, 0): 100.0, Cell(SUBJECTS[0], quick, 0): 10.0}
    remaining = [Cell(SUBJECTS[0], quick, 1), Cell(SUBJECTS[1], slow, 0)]
    assert seconds_left(remaining, took) == pytest.approx(10.0 + 55.0)
    assert seconds_left(remaining, {}) is None
