"""From an architecture's name to a network with a new head, its layer groups and its weights."""

from __future__ import annotations

import torch

from snowmelt_trainer.backbones.groups import layer_groups
from snowmelt_trainer.backbones.head import replace_head
from snowmelt_trainer.backbones.network import (
    build_network,
    build_skeleton,
    build_unfilled,
    check_image_size,
)
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING, BuiltBackbone, LayerGroup
from snowmelt_trainer.backbones.weights import Fetch, download, load_weights
from snowmelt_trainer.contract.backbone import Backbone


def build_backbone(
    backbone: Backbone,
    *,
    num_classes: int,
    dropout: float,
    seed: int,
    volumes_root: str,
    image_size: int,
    fetch: Fetch = download,
) -> BuiltBackbone:
    """The network that `backbone` names, on the CPU, with its weights and a new head for `num_classes`. Published
    weights come from `fetch`.

    Input: float32 (N, 3, image_size, image_size); output: logits (N, num_classes). Everything random comes from
    `seed`.

    Raises:
        RunError: InvalidConfig, ImageTooSmall, WeightsNotFound, WeightsMismatch, WeightsUnsafe or ChecksumMismatch.
    """
    architecture = backbone.architecture
    check_image_size(architecture, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = build_network if backbone.from_scratch else build_unfilled
        model = build(architecture, image_size=image_size)
        preprocessing = load_weights(model, backbone, image_size=image_size, volumes_root=volumes_root, fetch=fetch)
        replace_head(model, num_classes=num_classes, dropout=dropout, seed=seed)
    return BuiltBackbone(model, layer_groups(model), preprocessing or IMAGENET_PREPROCESSING)


def describe_groups(architecture: str, *, num_classes: int, image_size: int) -> tuple[LayerGroup, ...]:
    """The layer groups of a network that is not built: no weights are allocated, loaded or downloaded.

    Raises:
        RunError: InvalidConfig, when there is no such architecture; ImageTooSmall.
    """
    check_image_size(architecture, image_size)
    return layer_groups(build_skeleton(architecture, num_classes=num_classes, image_size=image_size))
