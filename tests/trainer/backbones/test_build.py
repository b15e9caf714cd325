"""A new head in the old one's place, everything random from the seed, and a delivered model that plain torchvision
can load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model

from snowmelt_trainer.backbones import Preprocessing, load_model, model_config
from snowmelt_trainer.backbones.network import build_network, build_skeleton, build_unfilled
from tests.trainer.backbones.networks import from_scratch, images

HEADS = [
    ("resnet18", "fc"),
    ("mobilenet_v3_small", "classifier.3"),
    ("squeezenet1_1", "classifier.1"),
    ("swin_t", "head"),
]


def test_the_same_seed_builds_the_same_network_and_another_does_not() -> None:
    first, again, other = (from_scratch("resnet18", image_size=32, seed=seed).model.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("resnet18", 32),
        ("googlenet", 32),
        ("mnasnet0_5", 32),
        ("convnext_tiny", 32),
        ("regnet_y_400mf", 32),
        ("vit_b_16", 32),
        ("swin_v2_t", 32),
        ("maxvit_t", 224),
    ],
)
def test_a_network_whose_weights_will_be_loaded_lacks_nothing_else(architecture: str, size: int) -> None:
    unfilled, drawn = (build(architecture, image_size=size) for build in (build_unfilled, build_network))
    parameters, buffers = dict(unfilled.named_parameters()), dict(unfilled.named_buffers())
    assert {name: one.shape for name, one in parameters.items()} == {n: p.shape for n, p in drawn.named_parameters()}
    assert all(one.device.type == "cpu" and one.requires_grad for one in parameters.values())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in drawn.named_buffers())


def test_a_network_whose_weights_will_be_loaded_draws_no_numbers() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    build_unfilled("resnet18", image_size=32)
    assert torch.equal(torch.rand(3), expected)


def test_building_leaves_the_generator_of_others_alone() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    from_scratch("resnet18", image_size=32, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("architecture", "head"), HEADS)
def test_the_new_head_has_the_old_ones_name_and_drops_out_in_training_alone(architecture: str, head: str) -> None:
    model = from_scratch(architecture, image_size=32, dropout=0.5).model
    layer = model.get_submodule(head)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    x = torch.ones(4, layer.weight.shape[1], *([1, 1] if isinstance(layer, nn.Conv2d) else []))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "squeezenet1_1", "googlenet", "mobilenet_v3_small"])
def test_there_is_no_second_dropout_before_the_head(architecture: str) -> None:
    model = from_scratch(architecture, image_size=32, dropout=0.5).model
    last = [module for module in model.modules() if isinstance(module, nn.Dropout)][-1]
    assert last.p == 0.0


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("resnet18", 32),
        ("mnasnet0_5", 32),
        ("googlenet", 32),
        ("maxvit_t", 224),
        ("squeezenet1_1", 32),
    ],
)
def test_a_delivered_model_loads_in_plain_torchvision(architecture: str, size: int, tmp_path: Path) -> None:
    built = from_scratch(architecture, image_size=size, num_classes=3)
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
    config = model_config(
        built.model, architecture, classes=["a", "b", "c"], preprocessing=preprocessing, image_size=size
    )
    save_file(built.model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(config), encoding="utf-8")
    x = images(2, size)

    model, classes, loaded_preprocessing = load_model(tmp_path)
    assert not model.training
    assert classes == ("a", "b", "c")
    assert loaded_preprocessing == preprocessing
    with torch.no_grad():
        assert torch.equal(model(x), built.model.eval()(x))
    plain = get_model(config["architecture"], weights=None, **config["options"])
    assert plain.state_dict().keys() == load_file(tmp_path / "model.safetensors").keys()
    assert type(model) is type(plain)


def test_a_network_made_for_one_image_size_is_described_with_it() -> None:
    model = build_skeleton("vit_b_32", num_classes=2, image_size=64)
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
    config = model_config(model, "vit_b_32", classes=["a", "b"], preprocessing=preprocessing, image_size=64)
    assert config["options"] == {"num_classes": 2, "image_size": 64}


def test_the_input_transform_of_googlenet_travels_with_the_model() -> None:
    model = from_scratch("googlenet", image_size=32).model
    model.transform_input = True
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")
    config = model_config(model, "googlenet", classes=["a", "b"], preprocessing=preprocessing, image_size=32)
    assert config["options"]["transform_input"] is True
