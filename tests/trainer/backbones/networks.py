"""Networks and images for the tests, built by torchvision's own builders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from snowmelt_trainer.backbones import BuiltBackbone, build_backbone
from snowmelt_trainer.backbones.network import build_skeleton
from snowmelt_trainer.contract.backbone import Backbone


def from_scratch(
    architecture: str, *, image_size: int, num_classes: int = 7, dropout: float = 0.2, seed: int = 0
) -> BuiltBackbone:
    return build_backbone(
        Backbone(architecture=architecture, weights="None"),
        num_classes=num_classes,
        dropout=dropout,
        seed=seed,
        volumes_root="/nonexistent",
        image_size=image_size,
    )


def with_any_weights(architecture: str, *, image_size: int) -> nn.Module:
    """The network with some weights of the right scale; far quicker than what the builders take pains to draw."""
    model = build_skeleton(architecture, num_classes=7, image_size=image_size)
    few = torch.randn(65_521, generator=torch.Generator().manual_seed(2))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            values = (few * scale).repeat(parameter.numel() // len(few) + 1)[: parameter.numel()]
            owner, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(owner), own_name, nn.Parameter(values.view(parameter.shape)))
    return model


def images(count: int, image_size: int, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))


def small_size(architecture: str) -> int:
    """The smallest of a few image sizes that the architecture processes."""
    sizes = {"alexnet": 64, "inception_v3": 75, "maxvit_t": 224, "vit_h_14": 28}
    return sizes.get(architecture, 32)


def as_published(folder: Path, state: object, *, digest: str = "") -> str:
    """The file:// URL of `state`, saved under a name that carries its hash, or `digest`, as torchvision's do."""
    torch.save(state, folder / "state.pth")
    digest = digest or hashlib.sha256((folder / "state.pth").read_bytes()).hexdigest()[:8]
    return (folder / "state.pth").rename(folder / f"weights-{digest}.pth").as_uri()
