"""Layer groups: a network's parameters, divided from input to output.

The division follows structure, not a table of architectures. The largest container is opened until the network has at
least MIN_PARTS parts (of ViT the encoder and its list of layers, of EfficientNet `features`); the parts then form
groups, in the order in which a trace of the forward pass calls them:

- the first group is "stem", the last, the new classifier layer, is "head";
- hidden linear layers of the classifier (VGG, AlexNet, MobileNetV3, MaxViT) are one group before the head;
- normalisation layers and single parameters (class token, position embedding) belong to what runs before them;
- single convolutional blocks (VGG, MobileNet, SqueezeNet, Inception) are one group from one downsampling to the next,
as the
  stages of a ResNet are;
- everything else is a group of its own: `layer3`, `features.5`, `denseblock2`, `encoder_layer_7`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain

from torch import fx, nn
from torchvision.ops import Conv2dNormActivation

from snowmelt_trainer.backbones.graph import trace_parts
from snowmelt_trainer.backbones.head import head_name
from snowmelt_trainer.backbones.types import LayerGroup

MIN_PARTS = 4
STEM = "stem"
HEAD = "head"

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_DROPOUTS = (nn.modules.dropout._DropoutNd,)


class _Kind(Enum):
    """What a part is to its group; parts of kind BLOCK and HIDDEN share one with neighbours of the same kind."""

    BLOCK = auto()
    HIDDEN = auto()
    NORM = auto()
    STAGE = auto()
    HEAD = auto()


@dataclass
class _Growing:
    """A group while its parts are being collected."""

    kind: _Kind
    modules: list[str] = field(default_factory=list)
    named_after: list[str] = field(default_factory=list)
    lone_parameters: list[str] = field(default_factory=list)


def layer_groups(model: nn.Module) -> tuple[LayerGroup, ...]:
    """The groups of a network whose head is its last linear layer, from input to output; each parameter is in exactly
    one.

    Raises:
        ValueError: when a parameter takes no part in the forward pass, such as one of an auxiliary head.
    """
    head = head_name(model)
    parts = open_parts(model, head)
    growing = _collect(model, trace_parts(model, parts), head, set(parts))
    groups = tuple(_finish(model, group, head, first=i == 0) for i, group in enumerate(growing))
    _check_complete(model, groups)
    return groups


def open_parts(model: nn.Module, head: str) -> list[str]:
    """The names of the modules that are never divided, in the order of definition; the head is one of them."""
    classifier = head.split(".", maxsplit=1)[0]
    parts = [name for name, _ in model.named_children()]
    while _has_children(model, [part for part in parts if head.startswith(f"{part}.")]):
        parts = _open(model, parts, next(part for part in parts if head.startswith(f"{part}.")))
    while True:
        backbone = [part for part in parts if part.split(".")[0] != classifier and _size(model, part) > 0]
        if len(backbone) >= MIN_PARTS:
            return parts
        largest = max(backbone, key=lambda part: _size(model, part))
        if not any(model.get_submodule(largest).children()):
            return parts
        parts = _open(model, parts, largest)


def _has_children(model: nn.Module, names: list[str]) -> bool:
    return any(any(model.get_submodule(name).children()) for name in names)


def _open(model: nn.Module, parts: list[str], opened: str) -> list[str]:
    inside = [f"{opened}.{name}" for name, _ in model.get_submodule(opened).named_children()]
    return list(chain.from_iterable(inside if part == opened else [part] for part in parts))


def _size(model: nn.Module, part: str) -> int:
    return sum(parameter.numel() for parameter in model.get_submodule(part).parameters())


def _collect(model: nn.Module, graph: fx.Graph, head: str, parts: set[str]) -> list[_Growing]:
    """Walks the trace once and puts each part, and each parameter outside of all parts, into the group it belongs
    to."""
    groups: list[_Growing] = []
    dropouts: list[str] = []
    downsampled = False
    for name in _first_uses(graph):
        if name not in parts:
            groups[-1].lone_parameters += _parameter(model, name)
            continue
        module = model.get_submodule(name)
        if isinstance(module, _DROPOUTS):
            dropouts.append(name)  # it works on the input of what comes next, and is on when that is trained
            continue
        downsampled = downsampled or _downsamples(module)
        if _size(model, name) == 0:
            continue
        kind = _kind(name, module, head)
        if not groups or not _joins(kind, groups[-1].kind, downsampled):
            groups.append(_Growing(kind))
        groups[-1].modules += [*dropouts, name]
        groups[-1].named_after += [name] if kind is not _Kind.NORM else []
        dropouts, downsampled = [], False
    return groups


def _parameter(model: nn.Module, name: str) -> list[str]:
    return [name] if name in dict(model.named_parameters()) else []


def _kind(name: str, module: nn.Module, head: str) -> _Kind:
    if name == head:
        return _Kind.HEAD
    if isinstance(module, _NORMS):
        return _Kind.NORM
    if name.split(".", maxsplit=1)[0] == head.split(".", maxsplit=1)[0]:
        return _Kind.HIDDEN
    bare_container = isinstance(module, _CONTAINERS) and not isinstance(module, Conv2dNormActivation)
    convolves = any(isinstance(inner, nn.Conv2d) for inner in module.modules())
    return _Kind.BLOCK if convolves and not bare_container else _Kind.STAGE


def _joins(kind: _Kind, group: _Kind, downsampled: bool) -> bool:
    if kind is _Kind.BLOCK:
        return group is _Kind.BLOCK and not downsampled
    return kind is _Kind.NORM or (kind is _Kind.HIDDEN and group is _Kind.HIDDEN)


def _downsamples(module: nn.Module) -> bool:
    return any(isinstance(inner, _STRIDED) and max(_pair(inner.stride)) > 1 for inner in module.modules())


def _pair(stride: int | tuple[int, ...]) -> tuple[int, ...]:
    return stride if isinstance(stride, tuple) else (stride,)


def _finish(model: nn.Module, group: _Growing, head: str, *, first: bool) -> LayerGroup:
    prefixes = tuple(f"{module}." for module in group.modules)
    inside = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    names = (*group.lone_parameters, *inside)
    return LayerGroup(
        name=STEM if first else _group_name(group, head),
        parameter_count=sum(model.get_parameter(name).numel() for name in names),
        modules=tuple(group.modules),
        batch_norm=any(
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            for module in group.modules
            for layer in model.get_submodule(module).modules()
        ),
        parameters=names,
    )


def _group_name(group: _Growing, head: str) -> str:
    """`features.7`, `features.4-6`, `encoder_layer_3`, `inception4a-inception4e`, `classifier`, `head`."""
    if group.kind is _Kind.HEAD:
        return HEAD
    if group.kind is _Kind.HIDDEN:
        return head.split(".", maxsplit=1)[0]
    first, last = group.named_after[0].split("."), group.named_after[-1].split(".")
    name = ".".join(first[-2:]) if first[-1].isdigit() else first[-1]
    return name if first == last else f"{name}-{last[-1]}"


def _check_complete(model: nn.Module, groups: tuple[LayerGroup, ...]) -> None:
    grouped = {name for group in groups for name in group.parameters}
    unused = [name for name, _ in model.named_parameters() if name not in grouped]
    if unused:
        raise ValueError(f"{unused[0]} and {len(unused) - 1} more parameters take no part in the forward pass")


def _first_uses(graph: fx.Graph) -> Iterator[str]:
    """Names of modules and parameters in the order in which the graph first uses them."""
    seen: set[str] = set()
    for node in graph.nodes:
        attributes = [argument for argument in node.all_input_nodes if argument.op == "get_attr"]
        for used in [*attributes, *([node] if node.op == "call_module" else [])]:
            name = str(used.target)
            if name not in seen:
                seen.add(name)
                yield name
