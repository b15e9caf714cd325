"""The cut between the frozen prefix, which only runs forward, and the suffix that is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from snowmelt_trainer.backbones.graph import single_tensor_nodes, subgraph, trace_parts
from snowmelt_trainer.backbones.groups import open_parts
from snowmelt_trainer.backbones.head import head_name
from snowmelt_trainer.backbones.types import LayerGroup


@dataclass(frozen=True)
class Cut:
    """suffix(prefix(images)) is model(images). Both halves use the model's own modules and parameters."""

    prefix: fx.GraphModule | None
    """None when nothing can be kept out of training."""
    suffix: nn.Module
    reason: str = ""
    """Why there is no prefix, when there could have been one."""
    at: str = ""
    """The prefix's last operation, as the network's trace names it."""

    def features(self, images: Tensor) -> Tensor:
        """What the suffix takes: the prefix's output without a graph behind it, or the images themselves."""
        if self.prefix is None:
            return images
        with torch.no_grad():  # not inference_mode, whose tensors autograd cannot save for the suffix
            return self.prefix(images)  # type: ignore[no-any-return]


def split_at(model: nn.Module, groups: Sequence[LayerGroup], first_trainable: int) -> Cut:
    """Cuts the network as late as can be before the group with index `first_trainable`.

    Whether dropout and batch statistics are on is read from the modules when they run, so set it on the model (see
    freeze.train_mode). When the groups from `first_trainable` on cannot be told from the rest by a single tensor,
    there is no prefix, and `reason` says so.
    """
    if first_trainable == 0:
        return Cut(prefix=None, suffix=model)
    graph = trace_parts(model, open_parts(model, head_name(model)))
    begin = _first_use(graph, groups[first_trainable:])
    cuts = [node for node in single_tensor_nodes(graph) if node < begin and node.op != "placeholder"]
    if not cuts:
        name = groups[first_trainable].name
        return Cut(prefix=None, suffix=model, reason=f"{name} and what precedes it share more than one tensor")
    return Cut(
        prefix=fx.GraphModule(model, subgraph(graph, until=cuts[-1])),
        suffix=fx.GraphModule(model, subgraph(graph, after=cuts[-1])),
        at=cuts[-1].name,
    )


def between(model: nn.Module, earlier: Cut, later: Cut) -> fx.GraphModule:
    """What turns the features at the earlier of two cuts of one network into those at the later one.

    Raises:
        ValueError: when `later` does not come after `earlier`, or one of them has no prefix.
    """
    graph = trace_parts(model, open_parts(model, head_name(model)))
    named = {node.name: node for node in graph.nodes}
    if earlier.at not in named or later.at not in named or named[later.at] < named[earlier.at]:
        raise ValueError(f"the cut at {later.at or 'no node'} does not come after that at {earlier.at or 'no node'}")
    return fx.GraphModule(model, subgraph(graph, after=named[earlier.at], until=named[later.at]))


def _first_use(graph: fx.Graph, groups: Sequence[LayerGroup]) -> fx.Node:
    """The first node that runs a module, or reads a parameter, of these groups."""
    theirs = {name for group in groups for name in (*group.modules, *group.parameters)}
    uses: Iterator[fx.Node] = (
        node
        for node in graph.nodes
        if node.op != "get_attr" and any(str(used.target) in theirs for used in (node, *node.all_input_nodes))
    )
    return next(uses)
