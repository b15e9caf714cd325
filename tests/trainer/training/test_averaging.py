"""The average of the weights: what it is, that it disturbs nothing, and where it starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.training.averaging import AveragedWeights, chosen_decay
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import RunState
from tests.trainer.training.runs import rig_for


def named(value: float) -> dict[str, nn.Parameter]:
    return {"weight": nn.Parameter(torch.full((2, 3), value)), "bias": nn.Parameter(torch.full((2,), value))}


def set_to(parameters: dict[str, nn.Parameter], value: float) -> None:
    for parameter in parameters.values():
        parameter.data.fill_(value)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_average_starts_at_the_first_weights_and_moves_by_a_fixed_share_of_the_way(
    steps: list[float], decay: float
) -> None:
    parameters = named(1.0)
    average, expected = AveragedWeights(parameters, decay), 1.0
    for value in steps:
        set_to(parameters, value)
        average.update()
        expected += (value - expected) * (1 - decay)
    with average.in_place():
        for parameter in parameters.values():
            torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), rtol=0, atol=1e-4)


def test_looking_at_the_average_leaves_the_last_steps_weights_bit_for_bit() -> None:
    parameters = {"weight": nn.Parameter(torch.randn(4, 4))}
    average = AveragedWeights(parameters, 0.9)
    parameters["weight"].data.normal_()
    average.update()
    before = parameters["weight"].detach().clone()
    with average.in_place():
        assert not parameters["weight"].equal(before)
        assert average.last_step()["weight"].equal(before)
    assert parameters["weight"].equal(before)


def test_an_average_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    walks = torch.randn(6, 4, 4)

    def walk(parameters: dict[str, nn.Parameter], average: AveragedWeights, steps: range) -> None:
        for step in steps:
            parameters["weight"].data.copy_(walks[step] + parameters["weight"].data)
            average.update()

    straight = {"weight": nn.Parameter(torch.zeros(4, 4))}
    whole = AveragedWeights(straight, 0.9)
    walk(straight, whole, range(3))
    with whole.in_place():
        model = straight["weight"].detach().clone()
        last_step = {name: tensor.clone() for name, tensor in whole.last_step().items()}
    walk(straight, whole, range(3, 6))

    resumed = {"weight": nn.Parameter(model)}
    rest = AveragedWeights(resumed, 0.9)
    rest.resume(last_step)
    walk(resumed, rest, range(3, 6))
    assert resumed["weight"].equal(straight["weight"])
    with whole.in_place(), rest.in_place():
        assert resumed["weight"].equal(straight["weight"])


def test_weights_of_other_layers_are_not_gone_on_from() -> None:
    with pytest.raises(ValueError, match="not those of the layers trained"):
        AveragedWeights(named(0.0), 0.9).resume({"weight": torch.zeros(2, 3)})


def test_without_decay_there_is_nothing_to_exchange() -> None:
    parameters = named(1.0)
    average = AveragedWeights(parameters, 0.0)
    set_to(parameters, 2.0)
    average.update()
    with average.in_place():
        assert parameters["weight"].flatten().tolist() == [2.0] * 6
        assert average.last_step() == {}


@pytest.mark.parametrize(
    ("given_decay", "steps", "decay"),
    [(None, 20, 0.9), (None, 2, 0.0), (None, 1, 0.0), (None, 10**6, 0.9998), (0.5, 20, 0.5), (0.0, 20, 0.0)],
)
def test_the_memory_is_half_an_epoch_where_the_spec_gives_none(
    given_decay: float | None, steps: int, decay: float
) -> None:
    assert chosen_decay(given_decay, steps) == pytest.approx(decay)


@pytest.mark.parametrize(("ema", "momentum"), [(None, 1 / 2), (0.8, 0.2), (0.0, 0.1)])
def test_statistics_are_of_the_same_steps_as_the_averaged_weights(
    configure: Callable[..., RunConfig], ema: float | None, momentum: float
) -> None:
    """180 images in steps of 45; ShuffleNet's own momentum is 0.1."""
    config = configure(unfreezing={"strategy": "Full"}, optimization={"batchSize": 45, "regularization": {"ema": ema}})
    rig = rig_for(config)
    StageTraining(rig, RunState(fingerprint=rig.fingerprint), b"")
    found = [one.momentum for one in rig.model.modules() if isinstance(one, nn.BatchNorm2d)]
    assert found == pytest.approx([momentum] * len(found))
    assert found
