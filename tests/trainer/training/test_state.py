"""The transitions of a run's state: what improves, what ends a stage, which weights are best."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.contract.unfreezing import Metric, StageLimits, Target
from snowmelt_trainer.training.metrics import Counts, improves
from snowmelt_trainer.training.state import RunState, StageEnd, after_epoch, as_metrics, close_stage

LIMITS = StageLimits(max_epochs=10, patience=2)


def counts(correct: int, loss: float = 1.0, of: int = 100) -> Counts:
    return Counts(correct=(correct, 0), total=(of, 0), loss_sum=loss * of)


def trained(
    *results: Counts, limits: StageLimits = LIMITS, target: Target | None = None, state: RunState | None = None
) -> RunState:
    state = state or RunState(fingerprint="f")
    for result in results:
        name = f"s{state.stage + 1}-e{state.epoch + 1}"
        state = after_epoch(state, result, limits=limits, max_epochs=limits.max_epochs, target=target, checkpoint=name)
    return state


def test_a_stage_ends_at_its_most_epochs() -> None:
    state = trained(counts(10), counts(20), counts(30), limits=StageLimits(max_epochs=3))
    assert (state.epoch, state.ended) == (3, StageEnd.MAX_EPOCHS)


def test_a_stage_ends_after_as_many_stale_epochs_as_patience_allows() -> None:
    assert trained(counts(50), counts(40), counts(60), counts(60)).ended is None
    assert trained(counts(50), counts(40), counts(60), counts(60), counts(59)).ended is StageEnd.PLATEAU


def test_an_epoch_while_the_rate_is_high_is_not_counted_by_patience() -> None:
    def ended_after(*high: bool) -> StageEnd | None:
        state = trained(counts(50))
        for now in high:
            state = after_epoch(
                state, counts(40), limits=LIMITS, max_epochs=10, target=None, checkpoint="c", rate_is_high=now
            )
        return state.ended

    assert ended_after(True, True, True, False) is None
    assert ended_after(True, False, False) is StageEnd.PLATEAU


def test_an_improvement_below_min_delta_counts_as_none() -> None:
    limits = StageLimits(max_epochs=10, patience=1, min_delta=0.02)
    assert trained(counts(50), counts(53), limits=limits).ended is None
    assert trained(counts(50), counts(51), limits=limits).ended is StageEnd.PLATEAU


def test_a_target_ends_the_stage_as_soon_as_it_is_reached() -> None:
    target = Target(metric=Metric.ACCURACY, at_least=0.9)
    assert trained(counts(89), target=target).ended is None
    assert trained(counts(89), counts(90), target=target).ended is StageEnd.TARGET_MET


def test_a_target_on_the_loss_is_met_from_above_and_decides_what_is_best() -> None:
    target = Target(metric=Metric.LOSS, at_most=0.5)
    state = trained(counts(90, loss=0.9), counts(50, loss=0.6), target=target)
    assert state.ended is None
    assert state.best is not None
    assert state.best.epoch == 2
    assert trained(counts(10, loss=0.5), target=target).ended is StageEnd.TARGET_MET


def test_at_a_tie_the_lower_loss_is_best_and_else_the_earlier() -> None:
    best = trained(counts(80, loss=0.5), counts(80, loss=0.4), counts(80, loss=0.4)).best
    assert best is not None
    assert best.checkpoint == "s1-e2"


def test_the_best_weights_are_the_best_of_all_stages() -> None:
    first = trained(counts(80), limits=StageLimits(max_epochs=1))
    second = trained(
        counts(70), limits=StageLimits(max_epochs=1), state=close_stage(first, name="head", trainable_parameters=5)
    )
    assert second.best is not None
    assert second.best.checkpoint == "s1-e1"
    assert [row.metrics["accuracy"] for row in second.rows] == ["0.8"]


def test_patience_begins_anew_in_each_stage() -> None:
    first = trained(counts(80), counts(70), counts(70))
    assert first.ended is StageEnd.PLATEAU
    second = trained(counts(10), counts(9), state=close_stage(first, name="head", trainable_parameters=5))
    assert (second.stale, second.ended) == (1, None)


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 10)), min_size=1, max_size=12))
def test_no_epoch_outranks_the_best_one(results: list[tuple[int, float]]) -> None:
    state = trained(
        *(counts(correct, loss) for correct, loss in results), limits=StageLimits(max_epochs=100, patience=100)
    )
    assert state.best is not None
    assert state.best.values[Metric.ACCURACY] == max(correct for correct, _ in results) / 100


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), min_size=1, max_size=12), st.sampled_from([0, 0.05]))
def test_a_stages_row_shows_what_its_best_weights_reach(results: list[tuple[int, int]], min_delta: float) -> None:
    limits = StageLimits(max_epochs=len(results), patience=100, min_delta=min_delta)
    state = trained(*(counts(correct, loss) for correct, loss in results), limits=limits)
    assert state.best is not None
    (row,) = close_stage(state, name="head", trainable_parameters=5).rows
    assert row.metrics == as_metrics(state.best.values)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12))
def test_a_state_survives_its_own_json(results: list[int]) -> None:
    state = trained(*(counts(correct) for correct in results), limits=StageLimits(max_epochs=100, patience=100))
    assert RunState.model_validate_json(state.model_dump_json(by_alias=True)) == state


def test_nan_improves_on_nothing() -> None:
    assert not improves(Metric.LOSS, math.nan, 1.0)
    assert not improves(Metric.LOSS, math.nan, None)


def test_balanced_accuracy_is_the_mean_over_the_classes_that_occur() -> None:
    values = Counts(correct=(9, 1, 0), total=(10, 2, 0), loss_sum=6.0).values
    assert values == {Metric.ACCURACY: 10 / 12, Metric.BALANCED_ACCURACY: (0.9 + 0.5) / 2, Metric.LOSS: 0.5}
