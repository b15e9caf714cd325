"""The average of the weights: what it is, that it disturbs nothing, and where it starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.training.averaging import AveragedWeights, better_narrow, chosen_decay
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import RunState
from tests.trainer.training.runs import rig_for

SIZES = pytest.mark.parametrize("side", [4, 512])
"""Of a small weight matrix, and of a large one."""


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
        with average.follow(parameters.values()):
            set_to(parameters, value)
        expected += (value - expected) * (1 - decay)
    with average.in_place():
        for parameter in parameters.values():
            torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(512, 512), (64, 512, 3, 3)])
def test_the_average_of_large_weights_is_off_by_less_than_a_hundredth_of_its_distance(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    if weight.dim() == 4:
        weight.data = weight.data.to(memory_format=torch.channels_last)
    average, expected = AveragedWeights({"weight": weight}, 0.9, narrow=True), weight.detach().double()
    for _ in range(30):
        with average.follow([weight]):
            weight.data.add_(torch.randn(shape), alpha=1e-3)
        expected += (weight.detach() - expected) * (1 - 0.9)
    distance = (weight.detach() - expected).norm()
    with average.in_place():
        assert (weight.detach() - expected).norm() < distance / 100
        assert distance > 0


@pytest.mark.parametrize(("narrow", "share"), [(True, 1 / 2), (False, 1)])
def test_large_weights_take_half_as_much_for_a_narrow_average(
    memory: Callable[[AveragedWeights], int], narrow: bool, share: float
) -> None:
    weight = nn.Parameter(torch.randn(512, 512))
    average = AveragedWeights({"weight": weight}, 0.9, narrow=narrow)
    assert memory(average) == weight.nbytes * share
    with average.in_place():
        pass
    assert memory(average) == weight.nbytes * share


@pytest.fixture
def memory() -> Callable[[AveragedWeights], int]:
    """Bytes of all tensors that an average holds beside the parameters."""

    def held(average: AveragedWeights) -> int:
        maps = [one for one in vars(average).values() if isinstance(one, dict)]
        tensors = [one for each in maps for one in each.values() if isinstance(one, torch.Tensor)]
        return sum(one.nbytes for one in tensors if not isinstance(one, nn.Parameter))

    return held


@pytest.mark.parametrize(
    ("mebibytes", "world", "narrow"),
    [
        (128, World(), True),
        (127, World(), False),
        (128, World(size=2), False),
        (128, World(device=torch.device("cuda")), False),
    ],
)
def test_an_average_is_narrow_where_one_processor_trains_much(mebibytes: int, world: World, narrow: bool) -> None:
    parameters = [nn.Parameter(torch.empty(1 << 18, device="meta")) for _ in range(mebibytes)]
    assert better_narrow(parameters, world) is narrow


def test_a_step_with_some_of_the_parameters_leaves_the_average_of_the_others() -> None:
    parameters = {"small": nn.Parameter(torch.ones(3)), "large": nn.Parameter(torch.ones(512, 512))}
    average = AveragedWeights(parameters, 0.5, narrow=True)
    for parameter in parameters.values():
        with average.follow([parameter]):
            parameter.data.fill_(2.0)
    with average.in_place():
        assert [float(one.detach().mean()) for one in parameters.values()] == [1.5, 1.5]


@SIZES
def test_looking_at_the_average_leaves_the_last_steps_weights_bit_for_bit(side: int) -> None:
    parameters = {"weight": nn.Parameter(torch.randn(side, side))}
    average = AveragedWeights(parameters, 0.9, narrow=True)
    with average.follow(parameters.values()):
        parameters["weight"].data.normal_()
    before = parameters["weight"].detach().clone()
    with average.in_place():
        assert not parameters["weight"].equal(before)
        assert average.last_step()["weight"].equal(before)
    assert parameters["weight"].equal(before)


@SIZES
def test_looking_at_the_average_leaves_it_as_it_was(side: int) -> None:
    weight = nn.Parameter(torch.randn(side, side))
    average = AveragedWeights({"weight": weight}, 0.9, narrow=True)
    with average.follow([weight]):
        weight.data.normal_()
    looks = []
    for _ in range(2):
        with average.in_place():
            looks.append(weight.detach().clone())
    torch.testing.assert_close(looks[1], looks[0], rtol=1e-4, atol=1e-4)


@SIZES
def test_an_average_goes_on_from_a_checkpoint_as_if_nothing_had_happened(side: int) -> None:
    torch.manual_seed(0)
    walks = torch.randn(6, side, side)

    def walk(parameters: dict[str, nn.Parameter], average: AveragedWeights, steps: range) -> None:
        for step in steps:
            with average.follow(parameters.values()):
                parameters["weight"].data.add_(walks[step])

    straight = {"weight": nn.Parameter(torch.zeros(side, side))}
    whole = AveragedWeights(straight, 0.9, narrow=True)
    walk(straight, whole, range(3))
    with whole.in_place():
        model = straight["weight"].detach().clone()
        last_step = {name: tensor.clone() for name, tensor in whole.last_step().items()}
    walk(straight, whole, range(3, 6))

    resumed = {"weight": nn.Parameter(model)}
    rest = AveragedWeights(resumed, 0.9, narrow=True)
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
    with average.follow(parameters.values()):
        set_to(parameters, 2.0)
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
