"""Which architecture a checkpoint of unknown origin is of."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor

from snowmelt_trainer.backbones.head import head_name
from snowmelt_trainer.backbones.network import build_skeleton
from snowmelt_trainer.backbones.registry import architecture_info, architectures

LARGEST_HEAD = 5_000_000
"""More parameters than the head of any published classifier has; besides it, checkpoints differ in buffers alone."""

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def lookalike(given: Shapes) -> str | None:
    """The architecture whose tensors, but for the head, have exactly these names and shapes; None when there is none.

    Those of similar size are tried first; no weights are allocated.
    """
    size = sum(prod(shape) for shape in given.values())
    distance = {name: abs(architecture_info(name).num_params - size) for name in architectures()}
    for architecture in sorted(distance, key=distance.__getitem__):
        if distance[architecture] > LARGEST_HEAD + size // 20:
            break
        model = build_skeleton(architecture, num_classes=2, image_size=architecture_info(architecture).min_image_size)
        head = f"{head_name(model)}."
        expected = {name: shape for name, shape in shapes_of(model.state_dict()).items() if not name.startswith(head)}
        if _without_counters(given, head) == _without_counters(expected, head):
            return architecture
    return None


def _without_counters(shapes: Shapes, head: str) -> Shapes:
    return {n: s for n, s in shapes.items() if not n.endswith(".num_batches_tracked") and not n.startswith(head)}
