"""One step: the same wherever it is made, with few gradients in memory, and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snowmelt_trainer.contract.optimization import OptimizerName
from snowmelt_trainer.training.optimizers import build_optimizer
from snowmelt_trainer.training.updates import AT_ONCE, MAX_GRADIENT_NORM, Updates

LAYERS = 6
WIDTH = 32
IMAGES = 16
MATRIX = 4 * WIDTH * WIDTH
"""Bytes of one layer's weights."""
Network = Callable[[], nn.Module]


class Tied(nn.Module):
    """Uses the weights of one layer twice, and those of another never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.once = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.twice(self.once(self.twice(inputs)).relu())
        return result


def plain() -> nn.Module:
    layers = [module for _ in range(LAYERS) for module in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())]
    return nn.Sequential(*layers)


def convolving() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 2), nn.Flatten()
    )
    return model.to(memory_format=torch.channels_last)


def losses(model: nn.Module, steps: int, size: float = 50.0) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield model(torch.randn(IMAGES, WIDTH, generator=random)).square().mean() * size


def updates(
    model: nn.Module, *, within: bool, at_once: int = AT_ONCE, name: OptimizerName = OptimizerName.ADAMW
) -> Updates:
    parameters = list(model.parameters())
    groups = [{"params": parameters, "lr": 0.01, "weight_decay": 0.05}]
    return Updates(
        build_optimizer(name, groups, torch.device("cpu")), parameters, within_backward=within, at_once=at_once
    )


@pytest.mark.parametrize("name", list(OptimizerName))
@pytest.mark.parametrize("network", [plain, convolving, Tied])
@pytest.mark.parametrize("at_once", [1, 2 * MATRIX, AT_ONCE])
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_a_step_within_the_backward_pass_is_the_same_as_one_after_it(
    name: OptimizerName, network: Network, at_once: int, size: float
) -> None:
    trained = []
    for within in (True, False):
        torch.manual_seed(0)
        model = network()
        update = updates(model, within=within, at_once=at_once, name=name)
        for loss in losses(model, 5, size):
            update.step(loss)
        trained.append(model.state_dict())
    one, other = trained
    assert all(torch.equal(one[key], other[key]) for key in one)


@given(st.floats(0.01, 1000.0))
def test_gradients_of_one_part_are_limited_as_torch_limits_all(size: float) -> None:
    ours, theirs = (plain() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    update = updates(ours, within=True, name=OptimizerName.SGD)
    update.step(next(losses(ours, 1, size)))
    torch.autograd.backward(next(losses(theirs, 1, size)))
    nn.utils.clip_grad_norm_(theirs.parameters(), MAX_GRADIENT_NORM)
    groups = [{"params": list(theirs.parameters()), "lr": 0.01, "weight_decay": 0.05}]
    build_optimizer(OptimizerName.SGD, groups, torch.device("cpu")).step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_part_is_limited_by_the_norm_from_the_output_up_to_it(size: float) -> None:
    model = plain()
    found: list[Tensor] = []
    update = updates(model, within=True, at_once=1)
    update._optimizer.register_step_pre_hook(
        lambda *_: found.extend(one.grad.clone() for one in model.parameters() if one.grad is not None)
    )
    update.step(next(losses(model, 1, size)))
    assert len(found) == len(list(model.parameters()))
    assert all(float(one.norm()) <= MAX_GRADIENT_NORM * 1.001 for one in found)
    if size > 1:
        assert float(found[0].norm()) == pytest.approx(MAX_GRADIENT_NORM, rel=1e-3)
        assert float(found[-1].norm()) < MAX_GRADIENT_NORM


def test_gradients_in_memory_are_few() -> None:
    model = plain()
    seen = []
    update = updates(model, within=True, at_once=2 * MATRIX)

    def look(_: Tensor) -> None:
        held = [*update._held.values(), *(one.grad for one in model.parameters() if one.grad is not None)]
        seen.append(sum(one.nbytes for one in held))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(look)  # runs before those that a step adds
    for loss in losses(model, 2):
        update.step(loss)
        assert all(parameter.grad is None for parameter in model.parameters())
    assert 2 * MATRIX <= max(seen) < 4 * MATRIX
    assert LAYERS > 4


def test_a_failed_backward_pass_leaves_nothing_behind_on_the_parameters() -> None:
    model = plain()
    update = updates(model, within=True, at_once=1)
    with pytest.raises(RuntimeError, match="scalar"):
        update.step(model(torch.randn(IMAGES, WIDTH)))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch.autograd.backward(next(losses(model, 1)))
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_several_workers_wait_until_their_gradients_are_exchanged() -> None:
    model = plain()
    update = updates(model, within=False, at_once=1)
    at_step: list[int] = []
    over: list[int] = []
    update._optimizer.register_step_pre_hook(lambda *_: at_step.append(len(over)))
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda _: over.append(1))
    update.step(next(losses(model, 1)))
    assert at_step
    assert min(at_step) == len(list(model.parameters()))
