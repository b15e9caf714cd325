from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.data.splits import hold_out

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(tuple)
FRACTIONS = st.floats(0.01, 0.99)


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**31 - 1))
def test_a_split_loses_nothing_and_keeps_every_class_in_training(
    labels: tuple[int, ...], fraction: float, seed: int
) -> None:
    train, validation = hold_out(labels, fraction, seed)
    assert sorted(train + validation) == list(range(len(labels)))
    kept, held_out = Counter(labels[i] for i in train), Counter(labels[i] for i in validation)
    for label, count in Counter(labels).items():
        assert kept[label] >= 1
        assert held_out[label] >= (1 if count >= 2 else 0)
        assert abs(held_out[label] - fraction * count) <= 1


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**31 - 1))
def test_a_split_depends_on_nothing_but_its_arguments(labels: tuple[int, ...], fraction: float, seed: int) -> None:
    assert hold_out(labels, fraction, seed) == hold_out(labels, fraction, seed)


def test_another_seed_holds_out_other_samples() -> None:
    assert len({tuple(hold_out((0,) * 50, 0.2, seed)[1]) for seed in range(20)}) > 15
