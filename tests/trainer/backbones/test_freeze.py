"""What is frozen stays as it is, to the last bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from snowmelt_trainer.backbones import parameter_groups, set_stage, split_at, train_mode
from snowmelt_trainer.contract.optimization import Optimization
from snowmelt_trainer.contract.unfreezing import Order, Unfreezing
from snowmelt_trainer.stages import plan_stages
from tests.trainer.backbones.networks import from_scratch, images


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121", "mobilenet_v3_small", "mnasnet0_5"])
@pytest.mark.parametrize("order", [Order.OUTPUT_FIRST, Order.INPUT_FIRST])
def test_frozen_weights_and_statistics_are_bit_identical_after_each_stage(architecture: str, order: Order) -> None:
    built = from_scratch(architecture, image_size=32)
    model, groups = built.model, built.groups
    stages = plan_stages(Unfreezing(order=order, max_stages=3), Optimization(), groups)
    for stage in stages:
        set_stage(model, groups, stage.trainable)
        first = min(i for i, group in enumerate(groups) if group.name in stage.trainable)
        cut = split_at(model, groups, first)
        optimizer = torch.optim.AdamW(parameter_groups(model, groups, stage, weight_decay=0.1))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for step in range(2):
            model.train()
            train_mode(model, groups, stage.trainable)
            optimizer.zero_grad()
            F.cross_entropy(cut.suffix(cut.features(images(4, 32, seed=step))), torch.arange(4)).backward()
            optimizer.step()

        trained = tuple(
            name for g in groups if g.name in stage.trainable for name in (*g.parameters, *(f"{m}." for m in g.modules))
        )
        after = model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert all(name.startswith(trained) for name in changed)
        assert {name for name, p in model.named_parameters() if p.requires_grad} <= changed


def test_a_stage_is_set_by_name_whatever_was_set_before() -> None:
    built = from_scratch("resnet18", image_size=32)
    set_stage(built.model, built.groups, ["stem", "layer1", "head"])
    set_stage(built.model, built.groups, ["layer4", "head"])
    trained = {name.split(".")[0] for name, p in built.model.named_parameters() if p.requires_grad}
    assert trained == {"layer4", "fc"}


def test_a_gradient_left_from_another_stage_is_dropped_with_the_freezing() -> None:
    built = from_scratch("resnet18", image_size=32)
    built.model(images(2, 32)).sum().backward()
    set_stage(built.model, built.groups, ["head"])
    assert built.model.get_parameter("conv1.weight").grad is None


def test_frozen_batch_norm_and_dropout_are_off_and_trained_ones_on() -> None:
    built = from_scratch("vgg11_bn", image_size=32)
    train_mode(built.model, built.groups, ["features.22-25", "head"])
    on = {name for name, module in built.model.named_modules() if module.training}
    assert {name for name in on if isinstance(built.model.get_submodule(name), nn.BatchNorm2d)} == {
        "features.23",
        "features.26",
    }
    assert not any(
        isinstance(built.model.get_submodule(name), nn.Dropout) for name in on if name.startswith("features")
    )
    assert "classifier.6" in on
    assert "classifier.2" not in on


def test_pretrained_statistics_are_kept_in_trained_layers_too_where_that_is_asked_for() -> None:
    built = from_scratch("resnet18", image_size=32)
    train_mode(built.model, built.groups, ["layer4", "head"], statistics=False)
    on = {name for name, module in built.model.named_modules() if module.training}
    assert "layer4.0.conv1" in on
    assert not any(isinstance(built.model.get_submodule(name), nn.BatchNorm2d) for name in on)


def test_an_unknown_group_is_an_error() -> None:
    built = from_scratch("resnet18", image_size=32)
    with pytest.raises(ValueError, match="no layer group is named layer9"):
        set_stage(built.model, built.groups, ["layer9"])


@pytest.mark.parametrize("architecture", ["resnet18", "vit_b_32", "swin_t", "convnext_tiny"])
def test_weight_decay_spares_vectors_and_embeddings(architecture: str) -> None:
    built = from_scratch(architecture, image_size=32)
    (stage,) = plan_stages(Unfreezing.model_validate({"strategy": "Full"}), Optimization(), built.groups)
    names = {parameter: name for name, parameter in built.model.named_parameters()}
    entries = parameter_groups(built.model, built.groups, stage, weight_decay=0.1)
    decayed = {names[p] for entry in entries if entry["weight_decay"] for p in entry["params"]}
    spared = {names[p] for entry in entries if not entry["weight_decay"] for p in entry["params"]}

    assert decayed | spared == set(names.values())
    assert all(built.model.get_parameter(name).ndim > 1 for name in decayed)
    assert not [name for name in decayed if "embedding" in name or "token" in name or "bias" in name]
    assert {entry["lr"] for entry in entries} == set(stage.learning_rates.values())


def test_an_optimizers_groups_hold_only_what_the_stage_trains() -> None:
    built = from_scratch("resnet18", image_size=32)
    stage = plan_stages(Unfreezing(max_stages=5), Optimization(), built.groups)[1]
    entries = parameter_groups(built.model, built.groups, stage, weight_decay=0.1)
    assert [entry["name"] for entry in entries] == ["layer4", "layer4 (no decay)", "head", "head (no decay)"]
    assert sum(p.numel() for entry in entries for p in entry["params"]) == stage.trainable_parameters
