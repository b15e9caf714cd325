"""Convolutions of small maps by matrix products compute what torch's do."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import get_model

from snowmelt_trainer.training import convolution
from snowmelt_trainer.training.convolution import MOST_PIXELS, multiply_small_maps
from snowmelt_trainer.training.precision import place_model

CPU = torch.device("cpu")


def images(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.contiguous(memory_format=torch.channels_last).requires_grad_()


def outcome(layer: nn.Module, given: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, the input's gradient and the parameters', for a loss that looks at each output differently from those
    around it. It multiplies by 64ths, whose sum, a bias' gradient, is the same in any order."""
    seen = given.detach().clone().requires_grad_()
    layer.zero_grad()
    result = layer(seen)
    weights = ((torch.arange(result.numel()) % 97 - 48) / 64).view_as(result)
    torch.autograd.backward((result.float() * weights).sum())
    assert seen.grad is not None
    return result, seen.grad, {name: one.grad.clone() for name, one in layer.named_parameters() if one.grad is not None}


def products_used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with an entry for each use of `patches` or `glimpses`: one of the forward pass, one of the backward pass
    for patches, and two for glimpses."""
    used: list[int] = []

    def note(name: str) -> None:
        counted = getattr(convolution._Window, name)

        def noted(*arguments: object) -> object:
            used.append(1)
            return counted(*arguments)

        monkeypatch.setattr(convolution._Window, name, noted)

    note("patches")
    note("glimpses")
    return used


@settings(deadline=None, max_examples=60)
@given(
    window=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    count=st.integers(1, 3),
    everywhere=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_torch(
    window: tuple[int, int, int],
    size: tuple[int, int],
    channels: tuple[int, int],
    count: int,
    everywhere: bool,
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(*channels, *window, bias=count > 1)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = copy.deepcopy(plain)
    multiply_small_maps(ours)
    given = images(count, channels[0], *size)
    wanted = outcome(plain, given)
    with patch.dict(MOST_PIXELS, {torch.float32: (1000 if everywhere else 0, 1000)}):
        torch.testing.assert_close(outcome(ours, given), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [32, 29])
@pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [(3, 1, 2), (3, 2, 4), (1, 1, 2), (1, 2, 4), (3, 1, 4)],
    ids=["glimpses", "wider glimpses", "single pixels", "every other pixel", "the weights' gradient alone"],
)
def test_in_bfloat16_gradients_lie_as_near_to_those_of_float32_as_those_of_torch(
    kernel: int, stride: int, size: int, count: int
) -> None:
    torch.manual_seed(0)
    exact = nn.Conv2d(64, 64, kernel, stride, padding=kernel // 2)
    exact.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rounded, ours = copy.deepcopy(exact), copy.deepcopy(exact)
    multiply_small_maps(ours)
    given = images(count, 64, size, size)
    wanted, of_images, of_parameters = outcome(exact, given)
    errors = {}
    for name, layer in (("torch", rounded), ("ours", ours)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result, image_gradient, gradients = outcome(layer, given)
        assert result.dtype is torch.bfloat16
        assert gradients["weight"].dtype is torch.float32
        errors[name] = [
            float((result - wanted).detach().norm()),
            float((image_gradient - of_images).norm()),
            float((gradients["weight"] - of_parameters["weight"]).norm()),
        ]
    assert all(mine <= 1.5 * theirs for mine, theirs in zip(errors["ours"], errors["torch"], strict=True))


class Products(TorchDispatchMode):
    """Notes the shapes and strides of what is multiplied within it."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[object] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in function.name():
            self.shapes.add(tuple((one.shape, one.stride()) for one in args if isinstance(one, Tensor)))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize(("kernel", "size"), [(3, 2), (1, 2), (3, 4)])
def test_in_bfloat16_batches_that_differ_by_one_are_products_of_the_same_shapes(kernel: int, size: int) -> None:
    layer = nn.Conv2d(8, 8, kernel, padding=kernel // 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    multiply_small_maps(layer)
    found = []
    for count in (56, 63, 64):
        with Products() as products, torch.autocast("cpu", dtype=torch.bfloat16):
            torch.autograd.backward(layer(images(count, 8, size, size)).square().sum())
        found.append(products.shapes)
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_a_network_on_a_processor_uses_products_where_maps_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    used = products_used(monkeypatch)
    model = get_model("resnet18", num_classes=3).eval()
    given = images(2, 3, 64, 64)
    wanted = model(given)
    place_model(model, CPU)
    torch.testing.assert_close(model(given), wanted, rtol=1e-4, atol=1e-4)
    layers = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert 0 < len(used) < layers  # the first convolutions see larger maps


@pytest.mark.parametrize(("size", "uses"), [(2, 3), (3, 1), (7, 1), (8, 0)])
def test_larger_maps_take_products_for_the_weights_gradient_alone_and_the_largest_none(
    size: int, uses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = products_used(monkeypatch)
    layer = nn.Conv2d(2, 2, 3, padding=1)
    multiply_small_maps(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(images(3, 2, size, size))
    torch.autograd.backward(result.sum())
    assert len(used) == uses


def test_an_image_is_computed_alike_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    used = products_used(monkeypatch)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    multiply_small_maps(layer)
    for count in (1, 7, 3000):
        layer(images(count, 8, 2, 2))
        layer(images(count, 8, 3, 3))
    assert len(used) == 3


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, (1, 3)),
        nn.Conv2d(4, 4, 3, stride=(1, 2)),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    ],
    ids=["grouped", "dilated", "oblong", "uneven stride", "same", "reflected"],
)
def test_other_convolutions_are_left_to_torch(layer: nn.Conv2d, monkeypatch: pytest.MonkeyPatch) -> None:
    used = products_used(monkeypatch)
    given = images(2, 4, 6, 6)
    wanted = layer(given)
    multiply_small_maps(layer)
    assert torch.equal(layer(given), wanted)
    assert not used


def test_names_and_parameters_stay_as_they_are() -> None:
    model = get_model("resnet18", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    place_model(model, CPU)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
