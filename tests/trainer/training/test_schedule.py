"""Learning rates as a function of the step, and how far a run is."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from snowmelt_trainer.contract.optimization import OptimizerName, Schedule
from snowmelt_trainer.stages import Stage
from snowmelt_trainer.training.optimizers import (
    build_optimizer,
    is_high,
    rate_factor,
    set_rate,
)
from snowmelt_trainer.training.seeding import derive_seed
from snowmelt_trainer.training.snapshot import Pace, remaining_seconds, share_done

totals = st.integers(1, 500)


def plan(*epochs: int) -> tuple[Stage, ...]:
    return tuple(
        Stage(i, len(epochs), f"stage{i}", ("head",), {"head": 0.1}, most, 10, 100)
        for i, most in enumerate(epochs, start=1)
    )


@given(st.sampled_from(list(Schedule)), totals, st.data())
def test_a_rate_is_positive_and_at_most_its_peak(schedule: Schedule, total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    assert 0.0 < rate_factor(schedule, step, total) <= 1.0


@given(st.sampled_from([Schedule.ONE_CYCLE, Schedule.COSINE]), totals)
def test_every_schedule_reaches_its_peak(schedule: Schedule, total: int) -> None:
    assert max(rate_factor(schedule, step, total) for step in range(total)) == 1.0


@given(st.integers(8, 500))
def test_one_cycle_rises_then_falls(total: int) -> None:
    rates = [rate_factor(Schedule.ONE_CYCLE, step, total) for step in range(total)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


@given(st.sampled_from(list(Schedule)), st.integers(8, 500), st.data())
def test_a_rate_is_high_until_it_has_come_down_to_half(schedule: Schedule, total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))
    to_come = [rate_factor(schedule, one, total) for one in range(step, total)]
    comes_down = to_come[-1] < 0.1
    assert is_high(schedule, step, total) == (comes_down and max(to_come) > 0.5001)


def test_groups_keep_their_proportions_under_a_schedule() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate, "weight_decay": 0.0} for rate in (0.1, 0.06)]
    for name in OptimizerName:
        optimizer = build_optimizer(name, [dict(group) for group in groups], torch.device("cpu"))
        set_rate(optimizer, 0.5)
        assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.03]


def test_adamw_is_torchs_and_copies_no_convolutions_weights() -> None:
    weights = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = (nn.Parameter(weights.to(memory_format=torch.channels_last, copy=True)) for _ in range(2))
    optimizer = build_optimizer(OptimizerName.ADAMW, [{"params": [ours], "lr": 0.1}], torch.device("cpu"))
    reference = torch.optim.AdamW([theirs], lr=0.1)
    for _ in range(3):
        theirs.grad = theirs.detach().square().contiguous(memory_format=torch.channels_last)
        ours.grad = theirs.grad.clone()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            optimizer.step()
        reference.step()
        assert "aten::clone" not in {event.key for event in profiled.key_averages()}
    torch.testing.assert_close(ours, theirs)
    assert optimizer.state[ours]["exp_avg"].shape == weights.shape


@given(st.lists(st.integers(0, 5), min_size=2, max_size=5), st.lists(st.integers(0, 5), min_size=2, max_size=5))
def test_different_places_have_different_seeds(one: list[int], other: list[int]) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.data())
def test_the_share_done_never_goes_back_and_ends_at_one(epochs: list[int], data: st.DataObject) -> None:
    stages = plan(*epochs)
    points = [(stage, done) for stage, most in enumerate(epochs) for done in range(most + 1)]
    shares = [share_done(stages, stage, done) for stage, done in points]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_what_remains_takes_as_long_for_each_epoch_as_this_stage_did() -> None:
    assert remaining_seconds(plan(4, 10), 0, 2.0, 60.0) == (2 + 10) * 30
    assert remaining_seconds(plan(4, 10), 0, 0.0, 0.0) is None
    assert remaining_seconds(plan(4, 10), 2, 0.0, 0.0) is None


def test_the_pace_is_that_of_the_newest_seconds() -> None:
    pace = Pace()
    assert pace.samples_per_second is None
    for second in range(100):
        pace.add(float(second), second * 10 if second < 50 else 500 + (second - 50) * 20)
    assert pace.samples_per_second == 20.0
    pace.restart()
    assert pace.samples_per_second is None
