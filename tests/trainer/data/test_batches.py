from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.data.batches import (
    automatic_batch,
    epoch_order,
    evaluation_shard,
    global_step,
    owned_shard,
    owners,
    shard,
    steps_per_epoch,
)

SAMPLES = st.integers(1, 300)
BATCHES = st.integers(1, 64)
WORLDS = st.integers(1, 16)
SEEDS = st.integers(0, 2**31 - 1)


@given(samples=SAMPLES, batch=BATCHES, world=WORLDS, seed=SEEDS)
def test_an_epoch_visits_each_sample_once_over_any_number_of_workers(
    samples: int, batch: int, world: int, seed: int
) -> None:
    order = epoch_order(samples, seed=seed, stage=1, epoch=2)
    steps = steps_per_epoch(samples, batch)
    visited = [shard(order, step, batch, rank, world).tolist() for step in range(steps) for rank in range(world)]
    assert sorted(chain.from_iterable(visited)) == list(range(samples))


@given(samples=SAMPLES, batch=BATCHES, seed=SEEDS, data=st.data())
def test_a_step_has_the_same_samples_over_any_number_of_workers(
    samples: int, batch: int, seed: int, data: st.DataObject
) -> None:
    order = epoch_order(samples, seed=seed, stage=0, epoch=0)
    step = data.draw(st.integers(0, steps_per_epoch(samples, batch) - 1))
    together = [
        sorted(np.concatenate([shard(order, step, batch, r, world) for r in range(world)])) for world in range(1, 10)
    ]
    assert together == [sorted(global_step(order, step, batch))] * 9


@given(samples=SAMPLES, batch=BATCHES, world=WORLDS)
def test_steps_and_shards_differ_by_one_sample_at_most(samples: int, batch: int, world: int) -> None:
    order = np.arange(samples)
    sizes = [len(global_step(order, step, batch)) for step in range(steps_per_epoch(samples, batch))]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    shares = [len(shard(order, 0, batch, rank, world)) for rank in range(world)]
    assert max(shares) - min(shares) <= 1


@given(samples=SAMPLES, batch=BATCHES, seed=SEEDS, data=st.data())
def test_an_epoch_whose_workers_come_and_go_visits_each_sample_once(
    samples: int, batch: int, seed: int, data: st.DataObject
) -> None:
    order = epoch_order(samples, seed=seed, stage=0, epoch=3)
    visited: list[int] = []
    for step in range(steps_per_epoch(samples, batch)):
        world = data.draw(WORLDS)
        visited += chain.from_iterable(shard(order, step, batch, rank, world).tolist() for rank in range(world))
    assert sorted(visited) == list(range(samples))


@given(samples=SAMPLES, world=WORLDS)
def test_an_evaluation_sees_each_sample_once_and_none_padded(samples: int, world: int) -> None:
    assert sorted(i for rank in range(world) for i in evaluation_shard(samples, rank, world)) == list(range(samples))


def test_each_epoch_of_each_stage_has_an_order_of_its_own() -> None:
    orders = {tuple(epoch_order(50, seed=s, stage=t, epoch=e)) for s in (0, 1) for t in (0, 1) for e in (0, 1)}
    assert len(orders) == 8


def test_the_order_is_pinned_so_that_an_upgrade_cannot_change_a_resumed_run_unnoticed() -> None:
    assert epoch_order(8, seed=0, stage=0, epoch=0).tolist() == [6, 5, 7, 2, 3, 4, 0, 1]


def test_a_step_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(IndexError, match="step 2 of an epoch of 2"):
        global_step(np.arange(10), 2, 5)


@given(samples=SAMPLES, batch=BATCHES, world=st.integers(1, 6), seed=SEEDS, at_least=st.integers(1, 2))
def test_owners_share_a_steps_samples_and_none_goes_without(
    samples: int, batch: int, world: int, seed: int, at_least: int
) -> None:
    order = epoch_order(samples, seed=seed, stage=0, epoch=0)
    for step in range(steps_per_epoch(samples, batch)):
        together = global_step(order, step, batch)
        shares = [owned_shard(order, step, batch, rank, world, at_least=at_least) for rank in range(world)]
        assert sorted(chain.from_iterable(share.tolist() for share in shares)) == sorted(together.tolist())
        assert min(map(len, shares)) >= min(at_least, len(together) // world)
        if world == 1:
            assert shares[0].tolist() == together.tolist()


@given(samples=st.integers(200, 300), world=WORLDS, seed=SEEDS)
def test_a_sample_goes_to_the_same_worker_in_every_epoch_where_no_worker_is_short_of_any(
    samples: int, world: int, seed: int
) -> None:
    for epoch in range(3):
        order = epoch_order(samples, seed=seed, stage=0, epoch=epoch)
        for rank in range(world):
            share = owned_shard(order, 0, 64, rank, world, at_least=0)
            assert (owners(share, world) == rank).all()


@pytest.mark.parametrize(
    ("samples", "batch"), [(180, 32), (700, 32), (900, 64), (1250, 64), (2100, 128), (4096, 256), (60_000, 256)]
)
def test_an_automatic_batch_leaves_a_small_data_set_enough_steps(samples: int, batch: int) -> None:
    assert automatic_batch(samples, workers=1) == batch


@given(samples=st.integers(1, 100_000), world=st.integers(1, 64))
def test_an_automatic_batch_gives_each_worker_something_to_do(samples: int, world: int) -> None:
    batch = automatic_batch(samples, world)
    assert batch >= 8 * world
    assert batch == 8 * world or 32 <= batch <= 256
    assert batch >= automatic_batch(samples, 1)
