"""The plan of stages is a pure function of the spec and the layer groups."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.contract.optimization import ActivationCache, CacheMode, HeadStart, Optimization, OptimizerName
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.unfreezing import CustomStage, Order, StageLimits, Strategy, Unfreezing
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.stages import REFERENCE_BATCH, GroupInfo, Stage, plan_stages

RESNET = tuple(
    GroupInfo(name, count, (module,), batch_norm=name != "head")
    for name, count, module in (
        ("stem", 9, "conv1"),
        ("layer1", 10, "layer1"),
        ("layer2", 20, "layer2"),
        ("layer3", 30, "layer3"),
        ("layer4", 40, "layer4"),
        ("head", 5, "fc"),
    )
)
NAMES = tuple(group.name for group in RESNET)

networks = st.integers(1, 40).map(lambda n: (*(GroupInfo(f"layer{i}", i + 1) for i in range(n)), GroupInfo("head", 3)))
orders = st.sampled_from([Order.OUTPUT_FIRST, Order.INPUT_FIRST])
optimizations = st.builds(
    Optimization,
    optimizer=st.sampled_from(OptimizerName),
    learning_rate=st.none() | st.floats(1e-6, 1.0),
    layer_decay=st.none() | st.floats(0.1, 1.0),
    batch_size=st.integers(1, 4096),
)


def plan(optimization: Optimization | None = None, **unfreezing: object) -> tuple[Stage, ...]:
    return plan_stages(Unfreezing.model_validate(unfreezing), optimization or Optimization(), RESNET)


def trained(stages: tuple[Stage, ...]) -> list[tuple[str, ...]]:
    return [stage.trainable for stage in stages]


def test_head_only_is_one_stage_of_the_head() -> None:
    assert trained(plan(strategy=Strategy.HEAD_ONLY)) == [("head",)]


def test_full_is_one_stage_of_everything() -> None:
    stages = plan(strategy=Strategy.FULL)
    assert trained(stages) == [NAMES]
    assert stages[0].name == "all"


def test_a_linear_probe_is_followed_by_everything() -> None:
    assert trained(plan(strategy=Strategy.LINEAR_PROBE_THEN_FINE_TUNE)) == [("head",), NAMES]


def test_gradual_unfreezes_from_the_output() -> None:
    stages = plan(strategy=Strategy.GRADUAL, max_stages=6)
    assert [stage.name for stage in stages] == ["head", "layer4", "layer3", "layer2", "layer1", "stem"]
    assert stages[2].trainable == ("layer3", "layer4", "head")
    assert [(stage.index, stage.of) for stage in stages] == [(i, 6) for i in range(1, 7)]


def test_gradual_unfreezes_from_the_input_while_the_new_head_is_trained() -> None:
    stages = plan(strategy=Strategy.GRADUAL, order=Order.INPUT_FIRST, max_stages=6)
    assert [stage.name for stage in stages] == ["head", "stem", "layer1", "layer2", "layer3", "layer4"]
    assert stages[1].trainable == ("stem", "head")


def test_groups_are_unfrozen_several_at_a_time_where_there_are_more_than_stages() -> None:
    assert [stage.name for stage in plan(max_stages=3)] == ["head", "layer3..layer4", "stem..layer2"]


def test_one_stage_of_gradual_is_the_head() -> None:
    assert trained(plan(max_stages=1)) == [("head",)]


def test_a_stage_in_between_is_planned_where_it_can_end_the_job_or_an_order_is_asked_for() -> None:
    target = {"atLeast": 0.9}
    assert [stage.name for stage in plan()] == ["head", "stem..layer4"]
    assert [stage.name for stage in plan(target=target)] == ["head", "layer3..layer4", "stem..layer2"]
    assert [stage.name for stage in plan(order=Order.INPUT_FIRST)] == ["head", "stem..layer1", "layer2..layer4"]
    assert len(plan(target=target, max_stages=2)) == 2
    assert len(plan(max_stages=3)) == 3


def test_stages_of_gradual_between_the_first_and_the_last_have_fewer_epochs_unless_a_number_is_given() -> None:
    assert [stage.max_epochs for stage in plan(max_stages=4)] == [6, 2, 2, 5]
    assert [stage.max_epochs for stage in plan(max_stages=2)] == [6, 5]
    assert [stage.max_epochs for stage in plan(max_stages=1)] == [6]
    assert [stage.max_epochs for stage in plan(max_stages=3, stage={"maxEpochs": 8})] == [8, 8, 8]
    assert [stage.max_epochs for stage in plan(strategy=Strategy.LINEAR_PROBE_THEN_FINE_TUNE)] == [6, 5]


def test_a_custom_stage_names_groups_patterns_or_modules() -> None:
    stages = plan(
        strategy=Strategy.CUSTOM,
        stages=[
            CustomStage(unfreeze=("layer4", "fc")),
            CustomStage(unfreeze=("layer[34]",), max_epochs=7, learning_rate=0.5),
            CustomStage(unfreeze=("stem", "layer4")),
        ],
    )
    assert trained(stages) == [("layer4", "head"), ("layer3", "layer4", "head"), ("stem", "layer4", "head")]
    assert [stage.name for stage in stages] == ["layer4..head", "layer3", "stem"]
    assert [stage.max_epochs for stage in stages] == [6, 7, 6]
    assert stages[1].learning_rates["head"] == 0.5


def test_a_pattern_that_matches_nothing_is_refused_with_its_place_and_the_nearest_name() -> None:
    with pytest.raises(RunError) as caught:
        plan(strategy=Strategy.CUSTOM, stages=[CustomStage(unfreeze=("head",)), CustomStage(unfreeze=("layr4",))])
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert "spec.unfreezing.stages[1].unfreeze: 'layr4' matches no layer group; nearest: 'layer4'" in str(caught.value)


def test_a_long_list_of_groups_has_a_short_name() -> None:
    every_other = tuple(f"layer{i}" for i in range(0, 40, 2))
    groups = (*(GroupInfo(f"layer{i}", 1) for i in range(40)), GroupInfo("head", 1))
    unfreezing = Unfreezing(strategy=Strategy.CUSTOM, stages=(CustomStage(unfreeze=every_other),))
    assert plan_stages(unfreezing, Optimization(), groups)[0].name == "21 groups"


def test_each_group_learns_slower_than_the_next_by_the_layer_decay() -> None:
    (stage,) = plan(Optimization(learning_rate=1.0, layer_decay=0.5), strategy=Strategy.FULL)
    assert [stage.learning_rates[name] for name in NAMES] == [0.5**i for i in (5, 4, 3, 2, 1, 0)]


def test_without_a_layer_decay_all_layers_learn_alike_where_everything_is_trained_and_batch_norm_adapts() -> None:
    _, upper, everything = plan(Optimization(learning_rate=1.0), max_stages=3)
    assert upper.learning_rates["layer4"] == pytest.approx(0.8 * upper.learning_rates["head"])
    assert set(everything.learning_rates.values()) == {everything.learning_rates["head"]}


def test_without_a_layer_decay_a_network_without_batch_norm_keeps_the_usual_one() -> None:
    groups = (GroupInfo("stem", 1), GroupInfo("head", 1))
    (stage,) = plan_stages(Unfreezing(strategy=Strategy.FULL), Optimization(learning_rate=1.0), groups)
    assert stage.learning_rates == {"stem": 0.8, "head": 1.0}


def test_a_backbone_without_batch_norm_learns_at_a_lower_automatic_rate() -> None:
    groups = (GroupInfo("stem", 1), GroupInfo("layer1", 1), GroupInfo("head", 1))
    unfreezing, optimization = Unfreezing(max_stages=3), Optimization(batch_size=REFERENCE_BATCH)
    head, upper, everything = plan_stages(unfreezing, optimization, groups)
    assert head.learning_rates["head"] == 4e-3
    assert upper.learning_rates["head"] == everything.learning_rates["head"] == 4e-3 / 16
    (full,) = plan_stages(Unfreezing(strategy=Strategy.FULL), optimization, groups)
    assert full.learning_rates["head"] == 4e-3 / 16


def test_a_frozen_group_between_still_counts_as_distance() -> None:
    stages = plan(Optimization(learning_rate=1.0, layer_decay=0.5), order=Order.INPUT_FIRST, max_stages=6)
    assert stages[1].learning_rates["stem"] == stages[1].learning_rates["head"] * 0.5**5


def test_a_given_rate_is_the_heads_in_the_first_stage_and_lower_once_the_head_is_warm() -> None:
    first, second, *_ = plan(Optimization(learning_rate=0.08))
    assert first.learning_rates["head"] == 0.08
    assert second.learning_rates["head"] == 0.02


@pytest.mark.parametrize(("optimizer", "factor"), [(OptimizerName.ADAMW, 2.0), (OptimizerName.SGD, 4.0)])
def test_the_automatic_rate_follows_the_batch(optimizer: OptimizerName, factor: float) -> None:
    small, large = (plan(Optimization(optimizer=optimizer, batch_size=size))[0] for size in (64, 256))
    assert large.learning_rates["head"] == pytest.approx(factor * small.learning_rates["head"])


def test_an_automatic_rate_is_higher_again_where_everything_is_trained() -> None:
    head, upper, everything = (stage.learning_rates["head"] for stage in plan(max_stages=3))
    assert upper < everything < head


def test_an_automatic_rate_spares_a_backbone_that_is_trained_from_the_start() -> None:
    (full,) = plan(strategy=Strategy.FULL)
    probe, fine_tune = plan(strategy=Strategy.LINEAR_PROBE_THEN_FINE_TUNE)
    assert full.learning_rates == fine_tune.learning_rates
    assert full.learning_rates["head"] < probe.learning_rates["head"]


@given(networks, orders, st.integers(1, 64), optimizations)
def test_gradual_only_ever_adds_and_ends_with_everything(
    groups: tuple[GroupInfo, ...], order: Order, max_stages: int, optimization: Optimization
) -> None:
    unfreezing = Unfreezing(order=order, max_stages=max_stages, stage=StageLimits(max_epochs=3))
    stages = plan_stages(unfreezing, optimization, groups)
    sets = [set(stage.trainable) for stage in stages]

    assert sets[0] == {"head"}
    assert len(stages) == min(max_stages, len(groups))
    assert all(earlier < later for earlier, later in itertools.pairwise(sets))
    assert max_stages == 1 or sets[-1] == {group.name for group in groups}
    added = [len(later - earlier) for earlier, later in itertools.pairwise(sets)]
    assert not added or max(added) - min(added) <= 1


@given(
    networks,
    orders,
    st.sampled_from([s for s in Strategy if s not in {Strategy.SURGICAL, Strategy.CUSTOM}]),
    optimizations,
)
def test_every_stage_trains_the_head_and_its_numbers_add_up(
    groups: tuple[GroupInfo, ...], order: Order, strategy: Strategy, optimization: Optimization
) -> None:
    counts = {group.name: group.parameter_count for group in groups}
    for stage in plan_stages(Unfreezing(order=order, strategy=strategy), optimization, groups):
        assert stage.trainable[-1] == "head"
        assert list(stage.trainable) == [group.name for group in groups if group.name in stage.trainable]
        assert stage.trainable_parameters == sum(counts[name] for name in stage.trainable)
        assert stage.total_parameters == sum(counts.values())
        assert tuple(stage.learning_rates) == stage.trainable
        assert all(0 < rate <= stage.learning_rates["head"] for rate in stage.learning_rates.values())
        assert len(stage.name) <= 256


@given(networks, st.data())
def test_a_custom_stage_trains_what_it_names_and_the_head(groups: tuple[GroupInfo, ...], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([group.name for group in groups]), min_size=1, unique=True))
    unfreezing = Unfreezing(strategy=Strategy.CUSTOM, stages=(CustomStage(unfreeze=tuple(names)),))
    (stage,) = plan_stages(unfreezing, Optimization(), groups)
    assert set(stage.trainable) == {*names, "head"}


NEVER = ActivationCache(mode=CacheMode.NEVER)


@pytest.mark.parametrize(
    ("strategy", "optimization", "solved"),
    [
        (Strategy.GRADUAL, Optimization(), [True, False]),
        (Strategy.LINEAR_PROBE_THEN_FINE_TUNE, Optimization(head_start=HeadStart.SOLVER), [True, False]),
        (Strategy.HEAD_ONLY, Optimization(head_start=HeadStart.EPOCHS), [False]),
        (Strategy.HEAD_ONLY, Optimization(cache=NEVER), [False]),
        (Strategy.FULL, Optimization(head_start=HeadStart.SOLVER), [False]),
    ],
)
def test_a_solver_finds_the_head_of_a_first_stage_that_trains_it_alone(
    strategy: Strategy, optimization: Optimization, solved: list[bool]
) -> None:
    stages = plan_stages(Unfreezing(strategy=strategy), optimization, RESNET)
    assert [stage.solved for stage in stages] == solved


def test_a_learning_rate_given_for_the_heads_stage_means_ordinary_epochs_unless_the_solver_is_asked_for() -> None:
    unfreezing = Unfreezing(
        strategy=Strategy.CUSTOM,
        stages=(CustomStage(unfreeze=("head",), learning_rate=0.1), CustomStage(unfreeze=("*",))),
    )
    found = {wanted: plan_stages(unfreezing, Optimization(head_start=wanted), RESNET)[0].solved for wanted in HeadStart}
    assert found == {HeadStart.AUTO: False, HeadStart.SOLVER: True, HeadStart.EPOCHS: False}
