"""The frozen prefix and the trained suffix do together what the whole network does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from snowmelt_trainer.backbones import LayerGroup, architecture_info, architectures, set_stage, split_at
from snowmelt_trainer.backbones.groups import layer_groups
from snowmelt_trainer.backbones.network import build_skeleton
from tests.trainer.backbones.networks import from_scratch, images, small_size, with_any_weights

HUGE = 250_000_000
"""Parameters, from which on shapes alone are compared: the memory of a small machine is shared."""
FAMILIES = [
    ("alexnet", 64),
    ("convnext_tiny", 32),
    ("densenet121", 32),
    ("efficientnet_b0", 32),
    ("googlenet", 64),
    ("inception_v3", 75),
    ("mnasnet0_5", 32),
    ("mobilenet_v3_small", 32),
    ("regnet_y_400mf", 32),
    ("resnet18", 32),
    ("shufflenet_v2_x0_5", 32),
    ("squeezenet1_1", 32),
    ("swin_t", 32),
    ("swin_v2_t", 32),
    ("vit_b_32", 32),
]


def small_enough(architecture: str) -> bool:
    return architecture_info(architecture).num_params < HUGE


def boundaries(num_groups: int) -> list[int]:
    """Each first group of a suffix; of a ViT's many equal layers, some."""
    return list(range(1, num_groups)) if num_groups <= 10 else [1, 2, num_groups // 2, num_groups - 2, num_groups - 1]


@pytest.mark.parametrize("architecture", [name for name in architectures() if small_enough(name)])
def test_suffix_after_prefix_is_the_model_at_every_group(architecture: str) -> None:
    size = small_size(architecture)
    model = with_any_weights(architecture, image_size=size).eval()
    groups = layer_groups(model)
    x = images(1, size)
    with torch.no_grad():
        whole = model(x)
        assert whole.std() > 0
        for index in boundaries(len(groups)):
            cut = split_at(model, groups, index)
            features = cut.features(x)
            before = features.clone()
            assert cut.prefix is not None
            assert torch.equal(cut.suffix(features), whole)
            assert torch.equal(features, before), "a suffix that changes its input would spoil cached features"


@pytest.mark.parametrize("architecture", [name for name in architectures() if not small_enough(name)])
def test_the_shapes_of_a_huge_network_fit_wherever_it_is_cut(architecture: str) -> None:
    size = small_size(architecture)
    model = build_skeleton(architecture, num_classes=7, image_size=size).eval().to("meta")
    groups = layer_groups(model)
    x = torch.empty(2, 3, size, size, device="meta")
    for index in boundaries(len(groups)):
        cut = split_at(model, groups, index)
        assert cut.prefix is not None
        assert cut.suffix(cut.features(x)).shape == (2, 7)


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    F.cross_entropy(logits, torch.arange(len(logits)) % 7).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("architecture", "size"), FAMILIES)
def test_a_training_step_has_the_gradients_of_the_uncut_network(architecture: str, size: int) -> None:
    """With dropout, stochastic depth and batch statistics on in the trained part."""
    built = from_scratch(architecture, image_size=size)
    x = images(4, size)
    for trainable in (built.groups[-1:], built.groups[len(built.groups) // 2 :]):
        names = [group.name for group in trainable]
        cut = split_at(built.model, built.groups, len(built.groups) - len(names))
        set_stage(built.model, built.groups, names)
        statistics = {name: buffer.clone() for name, buffer in built.model.named_buffers()}

        torch.manual_seed(5)
        expected = gradients(built.model, built.model(x))
        for name, buffer in built.model.named_buffers():
            buffer.copy_(statistics[name])
        torch.manual_seed(5)
        actual = gradients(built.model, cut.suffix(cut.features(x)))

        assert set(actual) == {name for group in trainable for name in group.parameters}
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_head_sees_pooled_features_when_it_alone_is_trained() -> None:
    built = from_scratch("resnet18", image_size=64)
    assert split_at(built.model, built.groups, 5).features(images(2, 64)).shape == (2, 512)


def test_both_halves_share_the_models_parameters() -> None:
    built = from_scratch("vit_b_32", image_size=32)
    cut = split_at(built.model, built.groups, 3)
    assert cut.prefix is not None
    named = dict(built.model.named_parameters())
    halves = [*cut.prefix.named_parameters(), *cut.suffix.named_parameters()]
    assert sorted(name for name, _ in halves) == sorted(named)
    assert all(parameter is named[name] for name, parameter in halves)


def test_the_model_sees_what_the_suffix_learns() -> None:
    built = from_scratch("resnet18", image_size=32)
    set_stage(built.model, built.groups, ["layer4", "head"])
    cut = split_at(built.model, built.groups, 4)
    optimizer = torch.optim.SGD([p for p in cut.suffix.parameters() if p.requires_grad], lr=0.1)
    x = images(4, 32)
    F.cross_entropy(cut.suffix(cut.features(x)), torch.arange(4)).backward()
    optimizer.step()
    built.model.eval()
    with torch.no_grad():
        assert torch.equal(built.model(x), cut.suffix(cut.features(x)))


def test_nothing_is_cut_off_when_the_stem_is_trained() -> None:
    built = from_scratch("resnet18", image_size=32)
    cut = split_at(built.model, built.groups, 0)
    assert cut.prefix is None
    assert cut.suffix is built.model
    assert cut.reason == ""


class _Skipping(nn.Module):
    """Each layer also sees the input, so no single tensor is all that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.fourth = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = self.second(y + x)
        y = self.third(y + x)
        return self.fc((self.fourth(y) + x).mean((2, 3)))


def test_a_network_that_cannot_be_cut_says_so_and_runs_whole() -> None:
    model = _Skipping()
    groups = tuple(
        LayerGroup(name=name, parameter_count=0, modules=(name,), parameters=())
        for name in ("first", "second", "third", "fourth", "fc")
    )
    cut = split_at(model, groups, 2)
    assert cut.prefix is None
    assert cut.suffix is model
    assert "third" in cut.reason
    assert split_at(model, groups, 4).features(torch.zeros(2, 3, 4, 4)).shape == (2, 3)
