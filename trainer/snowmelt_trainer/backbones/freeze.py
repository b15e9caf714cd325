"""Which parameters are trained, by name, and which modules run in training mode."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from snowmelt_trainer.backbones.types import LayerGroup


def set_stage(
    model: nn.Module, groups: Sequence[LayerGroup], trainable: Collection[str], *, statistics: bool = True
) -> None:
    """Makes the named layer groups the only ones that are trained, and puts the model in the mode for it (see
    `train_mode`).

    Raises:
        ValueError: when there is no group of a given name.
    """
    trained = {name for group in _chosen(groups, trainable) for name in group.parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
        if name not in trained:
            parameter.grad = None
    train_mode(model, groups, trainable, statistics=statistics)


def train_mode(
    model: nn.Module, groups: Sequence[LayerGroup], trainable: Collection[str], *, statistics: bool = True
) -> None:
    """Training mode for the named groups, evaluation mode for all else: what is frozen keeps its BatchNorm
    statistics. Without `statistics`, the named groups keep theirs too, and normalise with them.

    To be called again after every `model.eval()` and `model.train()`.

    Raises:
        ValueError: when there is no group of a given name.
    """
    chosen = _chosen(groups, trainable)
    model.eval()
    for group in chosen:
        for name in group.modules:
            model.get_submodule(name).train()
    if not statistics:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def changing_tensors(model: nn.Module, groups: Sequence[LayerGroup], trainable: Collection[str]) -> frozenset[str]:
    """The names, as in `model.state_dict()`, of all that training the named groups can change: their parameters, and
    the buffers of their modules.

    Raises:
        ValueError: when there is no group of a given name.
    """
    chosen = _chosen(groups, trainable)
    within = tuple(f"{module}." for group in chosen for module in group.modules)
    parameters = {name for group in chosen for name in group.parameters}
    return frozenset(name for name in model.state_dict() if name in parameters or name.startswith(within))


def _chosen(groups: Sequence[LayerGroup], names: Collection[str]) -> list[LayerGroup]:
    unknown = set(names) - {group.name for group in groups}
    if unknown:
        raise ValueError(f"no layer group is named {', '.join(sorted(unknown))}")
    return [group for group in groups if group.name in names]
