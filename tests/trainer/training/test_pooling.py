"""Max pools that keep little compute what torch's do, and a ReLU comes after one only where that changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import get_model

from snowmelt_trainer.training.pooling import MOST_IN_TWO_BYTES, keep_little_of_pools
from snowmelt_trainer.training.precision import place_model

POOLING = ["resnet18", "densenet121", "vgg11_bn", "alexnet", "squeezenet1_1", "shufflenet_v2_x0_5"]
"""One of each family of torchvision's that has a ReLU before a max pool."""


def outcome(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The output, and the gradients of the images and of all parameters, of a loss with as many slopes as outputs."""
    seen = images.clone().requires_grad_()
    torch.manual_seed(0)  # of dropout
    result = model(seen).float()
    torch.autograd.backward((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum())
    assert seen.grad is not None
    return [result, seen.grad, *(one.grad for one in model.parameters() if one.grad is not None)]


def kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Of all tensors that the backward pass is to find, each storage counted once."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = model(images)
    assert result.requires_grad
    return sum(storages.values())


def images_of(*shape: int) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return made.contiguous(memory_format=torch.channels_last)


def with_little_kept(model: nn.Module) -> nn.Module:
    ours = copy.deepcopy(model)
    keep_little_of_pools(ours)
    return ours


def assert_same(ours: list[Tensor], torchs: list[Tensor]) -> None:
    assert len(ours) == len(torchs)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, torchs, strict=True))


@pytest.mark.parametrize("bfloat16", [False, True], ids=["Float32", "BFloat16"])
@pytest.mark.parametrize("architecture", POOLING)
def test_of_torchvisions_networks_outputs_and_gradients_are_torchs_bit_for_bit(
    architecture: str, bfloat16: bool
) -> None:
    torch.manual_seed(0)
    model = get_model(architecture, weights=None, num_classes=3)
    model.to(memory_format=torch.channels_last)
    ours = with_little_kept(model)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        images = images_of(2, 3, 64, 64)
        assert_same(outcome(ours, images), outcome(model, images))


@settings(deadline=None, max_examples=60)
@given(
    window=st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2)),
    size=st.tuples(st.integers(8, 11), st.integers(8, 11)),
    ceil=st.booleans(),
    before=st.sampled_from(["nothing", "a ReLU", "a ReLU in place"]),
    layout=st.sampled_from([torch.channels_last, torch.contiguous_format]),
)
def test_of_any_window_outputs_and_gradients_are_torchs_bit_for_bit(
    window: tuple[int, int, int, int], size: tuple[int, int], ceil: bool, before: str, layout: torch.memory_format
) -> None:
    relu = [] if before == "nothing" else [nn.ReLU(inplace=before.endswith("in place"))]
    model = nn.Sequential(nn.BatchNorm2d(3), *relu, nn.MaxPool2d(*window, ceil_mode=ceil))
    some_equal = (images_of(2, 3, *size) * 4).round() / 4
    given = some_equal.contiguous(memory_format=layout)
    assert_same(outcome(with_little_kept(model), given), outcome(model, given))


def test_a_map_with_more_pixels_than_two_bytes_count_is_pooled_alike() -> None:
    side = int(MOST_IN_TWO_BYTES**0.5) + 2
    model = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.MaxPool2d(2))
    images = images_of(1, 1, side, side)
    assert_same(outcome(with_little_kept(model), images), outcome(model, images))


@pytest.mark.parametrize("architecture", POOLING)
def test_less_is_kept_for_the_backward_pass(architecture: str) -> None:
    model = get_model(architecture, weights=None, num_classes=3)
    model.to(memory_format=torch.channels_last)
    images = images_of(2, 3, 64, 64)
    assert kept_bytes(with_little_kept(model), images) < kept_bytes(model, images)


def test_of_a_pool_that_follows_a_relu_two_bytes_a_maximum_and_what_comes_out_are_kept() -> None:
    relu_and_pool = with_little_kept(nn.Sequential(nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)))
    images = images_of(2, 4, 8, 8).requires_grad_()
    maxima = 2 * 4 * 4 * 4
    assert kept_bytes(relu_and_pool, images * 1) == maxima * (2 + 4)


class Repeats(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.sum(1, keepdim=True).expand(-1, 3, -1, -1)


def test_maps_that_lie_over_each_other_are_pooled_alike() -> None:
    model = nn.Sequential(Repeats(), nn.MaxPool2d(2))
    images = images_of(2, 3, 8, 8)
    assert_same(outcome(with_little_kept(model), images), outcome(model, images))


class ReluAndPool(nn.Module):
    in_place = False

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU(self.in_place), nn.MaxPool2d(2)


class UsedElsewhere(ReluAndPool):
    def forward(self, images: Tensor) -> Tensor:
        rectified = self.relu(images * 1)
        pooled: Tensor = self.pool(rectified)
        return pooled + rectified[:, :, ::2, ::2]


class InPlaceOfWhatIsUsedElsewhere(ReluAndPool):
    in_place = True

    def forward(self, images: Tensor) -> Tensor:
        shifted = images + 0.5
        pooled: Tensor = self.pool(self.relu(shifted))
        return pooled + shifted[:, :, ::2, ::2]  # which is rectified by now


class ReluUsedTwice(ReluAndPool):
    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.pool(self.relu(images * 1)) - 1)  # type: ignore[no-any-return]


class PoolUsedTwice(ReluAndPool):
    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.pool(self.relu(images * 1)) - 1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", [UsedElsewhere, InPlaceOfWhatIsUsedElsewhere, ReluUsedTwice, PoolUsedTwice])
def test_a_relu_that_does_more_than_precede_one_pool_stays_where_it_is(network: Callable[[], nn.Module]) -> None:
    model, images = network(), images_of(2, 3, 8, 8)
    assert_same(outcome(with_little_kept(model), images), outcome(model, images))


class DecidesByWhatItIsGiven(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if inputs.sum() > 0 else -inputs)


def test_what_a_layer_does_within_itself_is_not_looked_at() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), DecidesByWhatItIsGiven(4, 3))
    images = images_of(2, 1, 4, 4)
    assert_same(outcome(with_little_kept(model), images), outcome(model, images))


def test_a_pool_that_also_returns_its_places_is_left_alone() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    images = images_of(2, 3, 8, 8)
    assert_same(list(with_little_kept(model)(images)), list(model(images)))


def test_a_processors_network_keeps_little_of_its_pools() -> None:
    model = get_model("resnet18", weights=None, num_classes=3)
    images, before = images_of(2, 3, 64, 64), copy.deepcopy(model)
    before.to(memory_format=torch.channels_last)
    place_model(model, torch.device("cpu"))
    places_and_maps = 2 * 64 * (16 * 16 * (8 - 2) + 32 * 32 * 4)
    assert kept_bytes(before, images) - kept_bytes(model, images) == pytest.approx(places_and_maps, rel=0.05)
