"""One step: the same wherever it is made, with few gradients in memory, and bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from snowmelt_trainer.contract.optimization import OptimizerName
from snowmelt_trainer.training.optimizers import MAX_GRADIENT_NORM, build_optimizer, limit_gradients
from snowmelt_trainer.training.updates import AT_ONCE, Updates, updates_of

LAYERS = 6
WIDTH = 32
IMAGES = 16


class Tied(nn.Module):
    """Uses the weights of one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

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


def losses(model: nn.Module, steps: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield model(torch.randn(IMAGES, WIDTH, generator=random)).square().mean() * 50


def updates(model: nn.Module, name: OptimizerName, at_once: int | None) -> Updates:
    groups = [{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.05}]
    return Updates(build_optimizer(name, groups, torch.device("cpu")), at_once=at_once)


@pytest.mark.parametrize("name", list(OptimizerName))
@pytest.mark.parametrize("network", [plain, convolving, Tied])
@pytest.mark.parametrize("at_once", [1, 2 * 4 * WIDTH * WIDTH, AT_ONCE])
def test_a_step_within_the_backward_pass_is_the_same_as_one_after_it(
    name: OptimizerName, network: type[nn.Module], at_once: int
) -> None:
    trained = []
    for moment in (at_once, None):
        torch.manual_seed(0)
        model = network()
        update = updates(model, name, moment)
        for loss in losses(model, 5):
            update.step(loss)
        trained.append(model.state_dict())
    within, after = trained
    assert all(torch.equal(within[key], after[key]) for key in within)


def test_gradients_that_wait_for_the_optimizer_are_few() -> None:
    model = plain()
    most, largest = 2 * 4 * WIDTH * WIDTH, 4 * WIDTH * WIDTH
    seen = []

    def look(_: Tensor) -> None:
        seen.append(sum(one.grad.nbytes for one in model.parameters() if one.grad is not None))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(look)  # before those that a step adds
    update = updates(model, OptimizerName.ADAMW, most)
    for loss in losses(model, 2):
        update.step(loss)
        assert all(parameter.grad is None for parameter in model.parameters())
    assert most <= max(seen) < most + largest


def test_a_failed_backward_pass_leaves_nothing_behind_on_the_parameters() -> None:
    model = plain()
    update = updates(model, OptimizerName.ADAMW, 1)
    with pytest.raises(RuntimeError, match="scalar"):
        update.step(model(torch.randn(IMAGES, WIDTH)))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch.autograd.backward(next(losses(model, 1)))
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_several_workers_wait_until_their_gradients_are_exchanged() -> None:
    model = plain()
    optimizer = build_optimizer(
        OptimizerName.ADAMW, [{"params": list(model.parameters()), "lr": 0.01}], torch.device("cpu")
    )
    made: list[int] = []
    optimizer.register_step_post_hook(lambda *_: made.append(1))
    updates_of(optimizer, workers=2).step(next(losses(model, 1)))
    assert len(made) == 1


@given(st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=4))
def test_each_gradient_is_limited_by_itself_as_torch_limits_one(sizes: list[float]) -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(3, 4)) for _ in (*sizes, 0.0)] for _ in range(2))
    for size, one, other in zip(sizes, ours, theirs, strict=False):  # the last has no gradient
        one.grad = torch.arange(one.numel(), dtype=torch.float32).view_as(one) * size / 10
        other.grad = one.grad.clone()
        nn.utils.clip_grad_norm_([other], MAX_GRADIENT_NORM)
    limit_gradients(ours)
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
        assert one.grad.norm() <= MAX_GRADIENT_NORM * 1.0001
