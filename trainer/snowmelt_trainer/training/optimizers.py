"""Optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snowmelt_trainer.contract.optimization import OptimizerName, Schedule

MOMENTUM = 0.9
WARM_UP = 0.1
"""Share of a OneCycle stage in which the rate rises. fastai's fit_one_cycle has a quarter; where a stage begins with
what the one before has learned, less is enough. docs/design/20261127-before-everything.md has what was measured."""
FIRST, LAST = 1 / 25, 1e-4
"""OneCycle begins and ends at these shares of the peak; Cosine ends at the last (torch.optim.lr_scheduler.OneCycleLR's
order of magnitude)."""
PEAK = "peak_lr"
OF_CONVOLUTIONS = 4
"""Dimensions of their weights."""


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """The learning rate of optimizer step `step` (from 0) of a stage of `total` steps, as a share of the peak, in (0,
    1].

    OneCycle (Smith and Topin 2019, arXiv 1708.07120) rises and falls along a cosine; Cosine falls from the peak;
    Constant stays there.
    """
    if schedule is Schedule.CONSTANT:
        return 1.0
    rise = _rise(schedule, total)
    if step < rise:
        return _cosine(FIRST, 1.0, step / rise)
    return _cosine(1.0, LAST, (step - rise) / max(1, total - 1 - rise))


def is_high(schedule: Schedule, steps: int, total: int) -> bool:
    """Whether the rate, after `steps` of `total` optimizer steps, has yet to come down to half its peak. What a stage
    learns shows only then; Constant, which never comes down, is not high."""
    rise = _rise(schedule, total)
    return schedule is not Schedule.CONSTANT and steps < rise + (total - 1 - rise) / 2


def _rise(schedule: Schedule, total: int) -> int:
    """Steps; at least one, and one is left for the peak."""
    return min(max(1, int(WARM_UP * total)), total - 1) if schedule is Schedule.ONE_CYCLE else 0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def build_optimizer(
    name: OptimizerName, groups: Sequence[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """An optimizer over torch parameter groups, each with its own peak `lr` and `weight_decay`; fused where torch has
    the kernel."""
    for group in groups:
        group[PEAK] = group["lr"]
    fused = device.type in {"cuda", "cpu"}
    if name is OptimizerName.SGD:
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=fused)
    return (_AdamWAsItLies if device.type == "cpu" else torch.optim.AdamW)(groups, fused=fused)


class _AdamWAsItLies(torch.optim.AdamW):
    """The same arithmetic. torch's kernel for processors copies whatever is not contiguous, before and afterwards,
    which takes as long as its work; so the weights of convolutions, which lie in channels_last, are handed to it in the
    order in which they lie."""

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = [one.permute(0, 2, 3, 1) if one.dim() == OF_CONVOLUTIONS else one for one in tensors]
        return has_complex


def first_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimizer's first step would make for a parameter. Made before that step's forward pass, it does not
    come to lie between activations, where it would leave too little room for those of the next."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    step = torch.zeros((), device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets each group's learning rate to its peak times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group[PEAK] * factor
