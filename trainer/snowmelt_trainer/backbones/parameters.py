"""The optimizer's parameter groups of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from snowmelt_trainer.backbones.types import LayerGroup
from snowmelt_trainer.stages import Stage

_NOT_DECAYED = ("class_token", "pos_embedding", "relative_position_bias_table")


def parameter_groups(
    model: nn.Module, groups: Sequence[LayerGroup], stage: Stage, weight_decay: float
) -> list[dict[str, Any]]:
    """The trained parameters, for `torch.optim.Optimizer`, divided by layer group and by whether weight decay
    applies.

    Each entry has params, lr (the stage's peak rate for the layer group), weight_decay and name (`layer4`, or `layer4
    (no decay)`). Biases, normalisation layers, other vectors and position embeddings are not decayed. Order and
    content depend on names alone, so a checkpointed optimizer finds its parameters again.
    """
    named = dict(model.named_parameters())
    entries = []
    for group in groups:
        if group.name not in stage.trainable:
            continue
        parameters = {name: named[name] for name in group.parameters}
        rate = stage.learning_rates[group.name]
        decayed = [parameter for name, parameter in parameters.items() if _decays(name, parameter)]
        others = [parameter for name, parameter in parameters.items() if not _decays(name, parameter)]
        for suffix, decay, params in (("", weight_decay, decayed), (" (no decay)", 0.0, others)):
            if params:
                entries.append({"name": f"{group.name}{suffix}", "params": params, "lr": rate, "weight_decay": decay})
    return entries


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] not in _NOT_DECAYED
