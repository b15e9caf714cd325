"""When a cache is built, with how many views, and where: a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.contract.optimization import ActivationCache, CacheMode
from snowmelt_trainer.contract.progress import CachePlace
from snowmelt_trainer.training.activations.opening import origins
from snowmelt_trainer.training.activations.payoff import Costs, Room, Transfer, Work, decide

QUICK, SLOW = Transfer(1e-6, 1e-6), Transfer(1.0, 1.0)
COSTS = Costs(load=0.001, prefix=0.004, row_bytes=1000, memory=QUICK, disk=Transfer(1e-4, 1e-4))
PLENTY = Room(memory=10**9, disk=10**10)
AUTO, ALWAYS = ActivationCache(), ActivationCache(mode=CacheMode.ALWAYS)
MEMORY, FILE = CachePlace.MEMORY, CachePlace.FILE


def work(epochs: int, *, augmented: bool = True) -> Work:
    return Work(epochs=epochs, samples=1000, validation=200, augmented=augmented)


@pytest.mark.parametrize(
    ("wanted", "of", "room", "views", "place"),
    [
        (AUTO, work(10, augmented=False), PLENTY, 1, MEMORY),
        (AUTO, work(2, augmented=False), PLENTY, 1, MEMORY),
        (AUTO, work(1, augmented=False), PLENTY, 0, None),  # nothing is read twice
        (ALWAYS, work(10), PLENTY, 5, MEMORY),
        (ALWAYS, work(3), PLENTY, 2, MEMORY),
        (ALWAYS, work(100), PLENTY, 8, MEMORY),
        (AUTO, work(1), PLENTY, 0, None),
        (AUTO, work(10), PLENTY, 0, None),  # fewer variations than epochs are not traded for time unasked
        (ActivationCache(views=5), work(10), PLENTY, 5, MEMORY),
        (ALWAYS, work(10), Room(5_199_999, 10**10), 5, FILE),  # one byte too few
        (ALWAYS, work(10), Room(5_200_000, 0), 5, MEMORY),
        (ALWAYS, work(10), Room(3_200_000, 10), 3, MEMORY),  # fewer views, where more fit nowhere
        (ALWAYS, work(10), Room(10, 2_200_000), 2, FILE),
        (ALWAYS, work(10), Room(1_200_000, 0), 0, None),  # one view would be no augmentation
        (AUTO, work(10, augmented=False), Room(1_200_000, 0), 1, MEMORY),
        (ALWAYS, work(10), Room(0, 0), 0, None),
        (ActivationCache(views=1), work(10), PLENTY, 1, MEMORY),
        (ActivationCache(views=20), work(10), PLENTY, 10, MEMORY),  # each epoch has its own: validation alone gains
        (ActivationCache(views=20), Work(10, 1000, 30, augmented=True), PLENTY, 0, None),  # and that is too little
        (ActivationCache(mode=CacheMode.ALWAYS, views=20), work(10), PLENTY, 10, MEMORY),
        (ActivationCache(mode=CacheMode.ALWAYS), work(1), PLENTY, 1, MEMORY),
        (ActivationCache(mode=CacheMode.ALWAYS), work(10), Room(0, 0), 0, None),
        (ActivationCache(views=4), work(10, augmented=False), PLENTY, 1, MEMORY),  # all would be alike
    ],
)
def test_what_is_built(wanted: ActivationCache, of: Work, room: Room, views: int, place: CachePlace | None) -> None:
    decision = decide(wanted, of, COSTS, room)
    assert (decision.views, decision.place) == (views, place)
    assert decision.reason.startswith("not built") == (views == 0)


def test_a_disk_slower_than_the_prefix_is_not_used() -> None:
    costs = Costs(load=0.0, prefix=0.004, row_bytes=1000, memory=QUICK, disk=SLOW)
    decision = decide(ActivationCache(views=5), work(10), costs, Room(0, 10**10))
    assert decision.views == 0
    assert decision.reason == (
        "not built: it would not pay over 10 epochs: 5 views in 4.96 MiB: 1.72e+04 s instead of 48 s"
    )


def test_what_does_not_fit_says_how_much_was_needed_and_how_much_there_is() -> None:
    decision = decide(ALWAYS, work(10), COSTS, Room(2048, 0))
    assert decision.reason == "not built: 2.1 MiB do not fit: 2 KiB of memory and 0 B of disk may be used"


@given(
    st.integers(1, 60), st.integers(0, 10**8), st.integers(0, 10**8), st.booleans(), st.sampled_from([None, 1, 3, 64])
)
def test_a_cache_is_never_larger_than_its_room(
    epochs: int, memory: int, disk: int, augmented: bool, views: int | None
) -> None:
    of = work(epochs, augmented=augmented)
    decision = decide(ActivationCache(views=views), of, COSTS, Room(memory, disk))
    size = (decision.views * of.samples + of.validation) * COSTS.row_bytes
    if decision.place is not None:
        assert size <= (memory if decision.place is MEMORY else disk)


@pytest.mark.parametrize(
    ("first_trained", "seen"),
    [
        ((5, 4, 2, 0), (0, 1, 2, 3)),  # OutputFirst: the cut moves towards the input
        ((2, 4, 5), (0, 0, 0)),  # Custom: it moves towards the output
        ((5, 5, 3, 3), (0, 0, 2, 2)),
        ((5, 0, 0), (0, 1, 2)),  # InputFirst: nothing is frozen before the first trained layer
        ((), ()),
    ],
)
def test_a_stage_sees_the_variations_of_the_stage_that_its_rows_can_come_from(
    first_trained: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    assert origins(first_trained) == seen
