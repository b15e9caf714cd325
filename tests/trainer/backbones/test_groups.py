"""Every torchvision classifier falls into ordered layer groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snowmelt_trainer.backbones import architecture_info, architectures, describe_groups, weights_names
from snowmelt_trainer.backbones.graph import trace_parts
from snowmelt_trainer.backbones.groups import layer_groups
from snowmelt_trainer.backbones.network import build_skeleton, takes_any_size_from_smallest
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError
from tests.trainer.backbones.networks import small_size


def parameters_in_order_of_the_forward_pass(model: nn.Module) -> list[str]:
    """From a trace into every single layer, which knows nothing of groups."""
    names = dict.fromkeys(name for name, _ in model.named_parameters())
    order: dict[str, None] = {}
    leaves = [name for name, module in model.named_modules() if not any(module.children())]
    attention = [name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    for node in trace_parts(model, [*leaves, *attention]).nodes:
        used = [*(n for n in node.all_input_nodes if n.op == "get_attr"), node]
        for target in (str(n.target) for n in used if n.op in ("get_attr", "call_module")):
            order.update((name, None) for name in names if name == target or name.startswith(f"{target}."))
    return list(order)


@pytest.mark.parametrize("architecture", architectures())
def test_groups_hold_every_parameter_once_in_the_order_of_the_forward_pass(architecture: str) -> None:
    model = build_skeleton(architecture, num_classes=7, image_size=small_size(architecture))
    groups = layer_groups(model)
    grouped = [name for group in groups for name in group.parameters]

    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    place = {name: index for index, group in enumerate(groups) for name in group.parameters}
    places = [place[name] for name in parameters_in_order_of_the_forward_pass(model)]
    assert places == sorted(places)
    assert len(places) == len(grouped)


@pytest.mark.parametrize("architecture", architectures())
def test_groups_begin_at_the_stem_and_end_at_a_head_for_the_targets_classes(architecture: str) -> None:
    model = build_skeleton(architecture, num_classes=7, image_size=small_size(architecture))
    groups = layer_groups(model)

    assert (groups[0].name, groups[-1].name) == ("stem", "head")
    assert len({group.name for group in groups}) == len(groups) >= 5
    assert {model.get_parameter(name).shape[0] for name in groups[-1].parameters} == {7}
    assert sum(group.parameter_count for group in groups) == sum(p.numel() for p in model.parameters())


FEATURES_1_TO_7 = [f"features.{i}" for i in range(1, 8)]


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("alexnet", ["features.3", "features.6-10", "classifier"]),
        ("convnext_tiny", FEATURES_1_TO_7),
        (
            "densenet121",
            [f"{kind}{i}" for i in range(1, 5) for kind in ("denseblock", "transition")][:-1],
        ),
        ("efficientnet_b0", [*FEATURES_1_TO_7, "features.8"]),
        (
            "googlenet",
            ["conv2-conv3", "inception3a-inception3b", "inception4a-inception4e", "inception5a-inception5b"],
        ),
        ("maxvit_t", ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "classifier"]),
        ("mnasnet1_0", [f"layers.{i}" for i in range(8, 15)]),
        ("mobilenet_v2", ["features.2-3", "features.4-6", "features.7-13", "features.14-18"]),
        ("mobilenet_v3_large", ["features.2-3", "features.4-6", "features.7-12", "features.13-16", "classifier"]),
        ("regnet_y_128gf", ["block1", "block2", "block3", "block4"]),
        ("resnet152", ["layer1", "layer2", "layer3", "layer4"]),
        ("shufflenet_v2_x1_0", ["stage2", "stage3", "stage4", "conv5"]),
        ("squeezenet1_1", ["features.3-4", "features.6-7", "features.9-12"]),
        ("swin_v2_b", FEATURES_1_TO_7),
        ("vgg16", ["features.5-7", "features.10-14", "features.17-21", "features.24-28", "classifier"]),
        ("vit_b_16", [f"encoder_layer_{i}" for i in range(12)]),
        ("wide_resnet101_2", ["layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_groups_have_the_names_that_people_know(architecture: str, names: list[str]) -> None:
    groups = describe_groups(architecture, num_classes=7, image_size=small_size(architecture))
    assert [group.name for group in groups] == ["stem", *names, "head"]


def test_class_token_and_position_embedding_belong_to_the_stem_of_a_vit() -> None:
    stem = describe_groups("vit_b_32", num_classes=7, image_size=32)[0]
    assert set(stem.parameters) == {
        "class_token",
        "encoder.pos_embedding",
        "conv_proj.weight",
        "conv_proj.bias",
    }


def test_a_last_normalisation_belongs_to_the_layers_before_it() -> None:
    assert "features.norm5.weight" in describe_groups("densenet121", num_classes=7, image_size=32)[-2].parameters
    assert "encoder.ln.weight" in describe_groups("vit_b_32", num_classes=7, image_size=32)[-2].parameters


def test_dropout_is_on_when_the_layers_behind_it_are_trained() -> None:
    classifier = describe_groups("alexnet", num_classes=7, image_size=64)[-2]
    assert classifier.modules == ("classifier.0", "classifier.1", "classifier.3", "classifier.4")


def test_a_parameter_that_takes_no_part_is_an_error() -> None:
    model = build_skeleton("resnet18", num_classes=7, image_size=32)
    model.insert_module = nn.Linear(2, 2)
    model.fc, model.insert_module = model.insert_module, model.fc
    with pytest.raises(ValueError, match="take no part in the forward pass"):
        layer_groups(model)


def test_size_and_weights_of_an_architecture_are_known_without_building_it() -> None:
    info = architecture_info("resnet50")
    assert (info.num_params, info.min_image_size) == (25557032, 1)
    assert info.weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert weights_names("resnet50") == ["IMAGENET1K_V1", "IMAGENET1K_V2"]


def test_groups_of_a_huge_network_take_hardly_any_memory() -> None:
    model = build_skeleton("regnet_y_128gf", num_classes=7, image_size=32)
    assert sum(t.nbytes for t in model.state_dict().values() if t.device != torch.device("meta")) < 2**21


def test_an_unknown_architecture_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(RunError, match="no classifier 'resnet5'; nearest: resnet50") as caught:
        describe_groups("resnet5", num_classes=7, image_size=32)
    assert caught.value.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize("architecture", filter(takes_any_size_from_smallest, architectures()))
def test_the_smallest_size_that_torchvision_names_is_one_that_the_network_takes(architecture: str) -> None:
    size = architecture_info(architecture).min_image_size
    model = build_skeleton(architecture, num_classes=2, image_size=size).eval().to("meta")
    assert model(torch.empty(1, 3, size, size, device="meta")).shape == (1, 2)


@pytest.mark.parametrize(
    ("architecture", "size", "reason", "words"),
    [
        ("alexnet", 32, Reason.IMAGE_TOO_SMALL, "alexnet cannot process 32x32"),
        ("inception_v3", 32, Reason.IMAGE_TOO_SMALL, "; 75 would do"),
        ("vit_b_16", 100, Reason.INVALID_CONFIG, "; 112 would do"),
        ("maxvit_t", 100, Reason.INVALID_CONFIG, "; 224 would do"),
    ],
)
def test_an_image_size_that_does_not_fit_is_refused_with_one_that_does(
    architecture: str, size: int, reason: Reason, words: str
) -> None:
    with pytest.raises(RunError, match=r"spec\.data\.imageSize") as caught:
        describe_groups(architecture, num_classes=7, image_size=size)
    assert caught.value.reason is reason
    assert words in caught.value.message
