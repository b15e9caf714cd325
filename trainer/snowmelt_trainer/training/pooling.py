"""Max pools that keep only where each maximum was, on a processor.

For its backward pass torch keeps the maps that are pooled, and the place of each maximum in eight bytes; the ReLU
before a pool keeps those maps, too. Both are needless. Places say all that a pool's gradient depends on, and fit into
two bytes. And the maximum of rectified values is the rectified maximum (rectifying keeps the order), so the ReLU may
come after the pool, where maps are a quarter as large and the next layer keeps them anyway. A ResNet pools once, where
its maps are largest: docs/design/20261126-around-a-step.md has what was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from snowmelt_trainer.backbones.graph import trace_parts

MOST_IN_TWO_BYTES = torch.iinfo(torch.int16).max
"""Pixels of a map."""
AT_ONCE = 1 << 19
"""Numbers that are pooled at once."""


def keep_little_of_pools(model: nn.Module) -> None:
    """From now on the model's max pools keep little, and a ReLU whose result a max pool alone takes comes after it.
    Outputs and gradients are torch's bit for bit; parameters and their names stay as they are."""
    pools = [one for one in model.modules() if isinstance(one, nn.MaxPool2d) and not one.return_indices]
    rectified = {pool: relu for relu, pool in _pairs(model)} if pools else {}
    for pool in pools:
        if pool in rectified:
            rectified[pool].forward = _unchanged  # type: ignore[method-assign, assignment]
        pool.forward = partial(_forward, pool, pool in rectified)  # type: ignore[method-assign]


def _pairs(model: nn.Module) -> Iterator[tuple[nn.ReLU, nn.MaxPool2d]]:
    """Each ReLU with the pool that alone takes its result, if the network runs either once."""
    graph = trace_parts(model, [name for name, one in model.named_modules() if not any(one.children())])
    times = Counter(node.target for node in graph.nodes)
    for node in graph.nodes:
        before = _sole_source(node)
        if before is None or _sole_source(before) is None or times[node.target] > 1 or times[before.target] > 1:
            continue
        relu, pool = _module(model, before), _module(model, node)
        if isinstance(relu, nn.ReLU) and isinstance(pool, nn.MaxPool2d):
            yield relu, pool


def _sole_source(node: fx.Node) -> fx.Node | None:
    """The only node that this one is computed from, if no other is computed from that: a ReLU may work in place."""
    sources = node.all_input_nodes
    return sources[0] if len(sources) == 1 and len(sources[0].users) == 1 else None


def _module(model: nn.Module, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _unchanged(maps: Tensor) -> Tensor:
    return maps


def _forward(pool: nn.MaxPool2d, rectify: bool, maps: Tensor) -> Tensor:
    """What `nn.MaxPool2d.forward` computes, rectified or not."""
    window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    if torch.is_grad_enabled() and maps.requires_grad:
        pooled: Tensor = _Pool.apply(maps, window)
    else:
        pooled = functional.max_pool2d(maps, *window)
    return functional.relu(pooled, inplace=True) if rectify else pooled


class _Pool(torch.autograd.Function):
    """It keeps the places of the maxima, and of the maps how they lie."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, window: tuple[Any, ...]) -> Tensor:
        kind = torch.int16 if maps.shape[-2:].numel() <= MOST_IN_TWO_BYTES else torch.int32
        at_once = _at_once(maps)
        parts: list[tuple[Tensor, Tensor]] = []
        for some in torch.split(maps, at_once):
            pooled, places = torch.ops.aten.max_pool2d_with_indices(some, *window)
            parts.append((pooled, places.to(kind)))
        pooled, places = (torch.cat(one) for one in zip(*parts, strict=True))
        ctx.save_for_backward(places)
        ctx.window, ctx.like, ctx.at_once = window, torch.empty_like(maps, device="meta"), at_once
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        of_maps = torch.empty_like(ctx.like, device=gradient.device)
        parts = (torch.split(one, ctx.at_once) for one in (of_maps, gradient, places))
        for into, above, at in zip(*parts, strict=True):
            torch.ops.aten.max_pool2d_with_indices_backward(
                above, into, *ctx.window, at.to(torch.int64), grad_input=into
            )  # of the maps that were pooled it looks at nothing but how they lie
        return of_maps, None


def _at_once(maps: Tensor) -> int:
    """How many of the maps are pooled together: torch counts places in eight bytes, which are in the way if they are
    those of all maps."""
    return max(1, AT_ONCE * len(maps) // max(1, maps.numel()))
