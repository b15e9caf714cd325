"""Layer-wise decay of the learning rate without freezing, as timm's --layer-decay has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.peers.ingredients import network, rate_of, training_loader
from bench.peers.plain import train
from bench.peers.protocol import Trial
from bench.peers.record import Record
from snowmelt_trainer.backbones.groups import layer_groups

DECAY = 0.75
"""timm's usual value: layer i of n learns at rate · decay^(n - i)."""


def fit(trial: Trial, record: Record) -> nn.Module:
    """The plain loop, with a rate for each layer group: stem, stages or blocks, head."""
    torch.manual_seed(trial.seed)
    model = network(trial)
    train(model, groups_of(model, rate_of(trial.task.architecture)), training_loader(trial), trial, record)
    return model


def groups_of(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameter groups from input to output; the head's has the whole rate."""
    groups = layer_groups(model)
    owner = {name: i for i, group in enumerate(groups) for name in group.parameters}
    found: list[dict[str, Any]] = [
        {"params": [], "lr": rate * DECAY ** (len(groups) - 1 - i)} for i in range(len(groups))
    ]
    for name, parameter in model.named_parameters():
        found[owner[name]]["params"].append(parameter)
    return [group for group in found if group["params"]]
