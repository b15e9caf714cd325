"""The classifier head: the last linear layer (or 1x1 convolution), replaced for the target's classes.

A new head has the old one's place and parameter names, so the trained weights load into plain torchvision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

INIT_STD = 0.01


class DropoutLinear(nn.Linear):
    """Dropout, then a linear layer: (N, in_features) -> (N, out_features)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dropout: float) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(F.dropout(input, self.dropout, self.training))


class DropoutConv2d(nn.Conv2d):
    """Dropout, then a 1x1 convolution: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool, dropout: float) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(F.dropout(input, self.dropout, self.training))


def head_name(model: nn.Module) -> str:
    """The name of the last linear layer or convolution: in every torchvision classifier, what computes the logits."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return names[-1]


def replace_head(model: nn.Module, *, num_classes: int, dropout: float, seed: int) -> None:
    """Puts a new head for `num_classes` in place of the old one, with small weights drawn from `seed` alone.

    `dropout` takes the place of the dropout that the architecture has right before its head, if any.
    """
    name = head_name(model)
    old = model.get_submodule(name)
    head: DropoutLinear | DropoutConv2d
    if isinstance(old, nn.Linear):
        head = DropoutLinear(old.in_features, num_classes, bias=old.bias is not None, dropout=dropout)
    elif isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        head = DropoutConv2d(old.in_channels, num_classes, bias=old.bias is not None, dropout=dropout)
    else:
        raise TypeError(f"{name} is a {type(old).__name__}, which is no classifier head that Snowmelt knows")
    with torch.no_grad():
        head.weight.normal_(std=INIT_STD, generator=torch.Generator().manual_seed(seed))
        if head.bias is not None:
            head.bias.zero_()
    _silence_dropout_before(model, name)
    model.set_submodule(name, head)


def _silence_dropout_before(model: nn.Module, head: str) -> None:
    """The new head brings its own dropout; that of the architecture right before it would be a second one."""
    names = [name for name, module in model.named_modules() if not any(module.children())]
    before = model.get_submodule(names[names.index(head) - 1])
    if isinstance(before, nn.Dropout):
        before.p = 0.0
