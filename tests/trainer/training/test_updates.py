"""One step: the same as torch's, with gradients in as few bytes as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snowmelt_trainer import training
from snowmelt_trainer.contract.optimization import OptimizerName, Precision
from snowmelt_trainer.training.optimizers import build_optimizer
from snowmelt_trainer.training.updates import LARGE, MAX_GRADIENT_NORM, Updates, updates_of

LAYERS = 4
WIDTH = 32
IMAGES = 16
MATRIX = 200
"""Bytes: fewer than any matrix of these networks has, more than any vector."""
CPU = torch.device("cpu")
ORDINARY = 0.1
"""Size of a loss whose gradients are far below the limit."""
Network = Callable[[], nn.Module]
Dtype = torch.dtype | None


class NeverUsed(nn.Module):
    """Has weights that get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.never, self.used = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.used(inputs)
        return result


def plain() -> nn.Module:
    layers = [module for _ in range(LAYERS) for module in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())]
    return nn.Sequential(*layers)


def convolving() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 2), nn.Flatten()
    )
    return model.to(memory_format=torch.channels_last)


def losses(model: nn.Module, steps: int, size: float, dtype: Dtype = None) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = model(torch.randn(IMAGES, WIDTH, generator=random))
        yield outputs.float().square().mean() * size


def optimizer_of(model: nn.Module, name: OptimizerName = OptimizerName.ADAMW) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.05}]
    return build_optimizer(name, groups, CPU)


def twins(network: Network) -> tuple[nn.Module, nn.Module]:
    one, other = network(), network()
    other.load_state_dict(one.state_dict())
    return one, other


def after(ours: nn.Module, theirs: nn.Module, name: OptimizerName, *, steps: int, size: float, dtype: Dtype) -> None:
    """Trains `ours` as we do, and `theirs` as one does with torch."""
    updates = Updates(optimizer_of(ours, name), narrow=dtype is not None, large=MATRIX)
    optimizer = optimizer_of(theirs, name)
    for mine, other in zip(losses(ours, steps, size, dtype), losses(theirs, steps, size, dtype), strict=True):
        updates.step(mine)
        torch.autograd.backward(other)
        nn.utils.clip_grad_norm_(theirs.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", list(OptimizerName))
@pytest.mark.parametrize("network", [plain, convolving, NeverUsed])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_ordinary_steps_are_those_of_torch_bit_for_bit(name: OptimizerName, network: Network, dtype: Dtype) -> None:
    ours, theirs = twins(network)
    after(ours, theirs, name, steps=3, size=ORDINARY, dtype=dtype)
    assert all(torch.equal(one, two) for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(one.grad is None for one in ours.parameters())


@pytest.mark.parametrize("network", [plain, convolving, NeverUsed])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@given(size=st.floats(ORDINARY, 1e4))
@settings(max_examples=5, deadline=None)
def test_a_freak_batch_is_limited_as_torch_does_it(network: Network, dtype: Dtype, size: float) -> None:
    ours, theirs = twins(network)
    after(ours, theirs, OptimizerName.SGD, steps=1, size=size, dtype=dtype)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_what_is_narrowed_had_been_computed_so(architecture: str) -> None:
    kwargs = {"image_size": 32} if architecture.startswith("vit") else {}
    model = torchvision.models.get_model(architecture, num_classes=10, **kwargs)
    narrowed = [one for one in model.parameters() if one.nbytes >= LARGE]
    exact = []

    def look(parameter: Tensor) -> None:
        assert parameter.grad is not None
        exact.append(torch.equal(parameter.grad, parameter.grad.to(torch.bfloat16).float()))

    for parameter in narrowed:
        parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(4, 3, 32, 32))
    torch.autograd.backward(logits.float().square().mean())
    assert narrowed
    assert exact == [True] * len(narrowed)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients of a step, as they lie in memory when the backward pass is over."""
    found: list[Tensor] = []
    norm = training.updates._norm

    def look(*gradients: list[Tensor]) -> Tensor:
        found.extend(chain.from_iterable(gradients))
        return norm(*gradients)

    monkeypatch.setattr(training.updates, "_norm", look)
    return found


@pytest.mark.parametrize(
    ("precision", "workers", "dtype"),
    [
        (Precision.BFLOAT16, 1, torch.bfloat16),
        (Precision.BFLOAT16, 2, torch.float32),  # they lie in DistributedDataParallel's buffers
        (Precision.FLOAT32, 1, torch.float32),
    ],
)
def test_one_worker_in_bfloat16_holds_large_gradients_in_it(
    precision: Precision, workers: int, dtype: torch.dtype, held: list[Tensor]
) -> None:
    model = nn.Linear(512, 512)
    updates_of(optimizer_of(model), precision, workers).step(model(torch.randn(IMAGES, 512)).square().mean())
    assert {one.dim(): one.dtype for one in held} == {2: dtype, 1: torch.float32}


def test_a_failed_backward_pass_leaves_nothing_behind_on_the_parameters() -> None:
    model = plain()
    updates = Updates(optimizer_of(model), narrow=True, large=1)
    with pytest.raises(RuntimeError, match="scalar"):
        updates.step(model(torch.randn(IMAGES, WIDTH)))
    torch.autograd.backward(next(losses(model, 1, 1.0)))
    assert all(parameter.grad is not None for parameter in model.parameters())
