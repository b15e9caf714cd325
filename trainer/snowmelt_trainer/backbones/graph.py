"""The order in which a network runs its parts, and the places where a single tensor is all that goes on.

The network is traced by torch.fx with its parts kept whole, so what they do in training (dropout, stochastic depth,
batch statistics) stays theirs to decide at run time, and nothing of it is baked into the graph.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn


class _PartsTracer(fx.Tracer):
    """Traces into a network down to `parts`, and into nothing below them."""

    def __init__(self, parts: Collection[str]) -> None:
        super().__init__()
        self._parts = frozenset(parts)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._parts or super().is_leaf_module(m, module_qualified_name)


def trace_parts(model: nn.Module, parts: Collection[str]) -> fx.Graph:
    """The network's graph, one node a part, besides the operations between them.

    Raises:
        Exception: torch.fx has no common error for a network whose control flow depends on its input.
    """
    return _PartsTracer(parts).trace(model)


def single_tensor_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes after which everything still to come depends on that node alone (and on parameters), in order.

    These are where the network can be cut in two. The input is the first of them.
    """
    nodes = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    position = {node: i for i, node in enumerate(graph.nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    cuts = []
    latest_of_the_others = -1
    for node in nodes:
        if latest_of_the_others <= position[node] < last_use[node]:
            cuts.append(node)
        latest_of_the_others = max(latest_of_the_others, last_use[node])
    return cuts


def subgraph(graph: fx.Graph, *, after: fx.Node | None = None, until: fx.Node | None = None) -> fx.Graph:
    """The part of the graph that turns `after` (the input when None) into `until` (the output when None)."""
    end = until or next(node for node in graph.nodes if node.op == "output")
    needed = _needed_for(end, given=after)
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if after is not None:
        copies[after] = part.placeholder("x")
    for node in graph.nodes:  # in the order of the original, which operations in place rely on
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    if until is not None:
        part.output(copies[until])
    return part


def _needed_for(end: fx.Node, *, given: fx.Node | None) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is not given and node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed
