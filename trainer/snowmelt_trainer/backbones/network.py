"""Builds networks with torchvision's own builders; also without memory for their weights, where only shapes are of
interest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import get_model

from snowmelt_trainer.backbones.head import replace_head
from snowmelt_trainer.backbones.registry import architecture_info
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError

AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""Builders whose auxiliary classifiers, which serve training from scratch on ImageNet, are left out."""


def builder_options(architecture: str, *, image_size: int) -> dict[str, Any]:
    """Arguments for torchvision's builder: no auxiliary heads, square images of `image_size` where the network is
    made for one size."""
    if architecture in AUXILIARY_HEADS:
        return {"aux_logits": False, "init_weights": True}
    if architecture.startswith("vit_"):
        return {"image_size": image_size}
    if architecture.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def check_image_size(architecture: str, image_size: int) -> None:
    """Runs the network on shapes alone, which takes half a second, where it is not known to take all sizes from its
    smallest.

    Raises:
        RunError: ImageTooSmall or InvalidConfig, when the architecture cannot process images of that size.
    """
    if takes_any_size_from_smallest(architecture) and image_size >= architecture_info(architecture).min_image_size:
        return
    problem = _problem_with(architecture, image_size)
    if problem is None:
        return
    steps = {14, 16, 32, 224}
    larger = sorted({architecture_info(architecture).min_image_size, *(-(-image_size // n) * n for n in steps)})
    fitting = next((size for size in larger if size > image_size and not _problem_with(architecture, size)), None)
    reason, text = problem
    remedy = f"; {fitting} would do" if fitting else ""
    size = f"{image_size}x{image_size}"
    raise RunError(reason, f"spec.data.imageSize: {architecture} cannot process {size} ({text}){remedy}")


def takes_any_size_from_smallest(architecture: str) -> bool:
    """Whether the network is built alike for all sizes; the smallest that torchvision says that it takes is true."""
    return not builder_options(architecture, image_size=1)


def _problem_with(architecture: str, image_size: int) -> tuple[Reason, str] | None:
    try:
        model = build_skeleton(architecture, num_classes=2, image_size=image_size).eval()
    except (AssertionError, ValueError) as error:  # ViT and MaxViT take multiples of a patch only
        return Reason.INVALID_CONFIG, str(error).splitlines()[0]
    try:
        model.to("meta")(torch.empty(1, 3, image_size, image_size, device="meta"))
    except RuntimeError as error:
        return Reason.IMAGE_TOO_SMALL, str(error).splitlines()[0]
    return None


def build_network(architecture: str, *, image_size: int) -> nn.Module:
    """The plain torchvision network with the published number of classes, its weights at random."""
    return get_model(architecture, weights=None, **builder_options(architecture, image_size=image_size))


def build_unfilled(architecture: str, *, image_size: int) -> nn.Module:
    """As `build_network`, but for what its parameters hold, which may be anything: for whoever loads all of them.
    Drawing numbers first, only to overwrite them, takes seconds for a large network."""
    with _WithoutWeights():
        model = build_network(architecture, image_size=image_size)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu")))
    return model


def build_skeleton(architecture: str, *, num_classes: int, image_size: int) -> nn.Module:
    """The network with its parameters, the head's apart, on the meta device: shapes and names, hardly any memory."""
    with torch.random.fork_rng(devices=[]):
        with _WithoutWeights():
            model = build_network(architecture, image_size=image_size)
        replace_head(model, num_classes=num_classes, dropout=0.0, seed=0)
    return model


class _WithoutWeights(TorchFunctionMode):
    """Allocates no parameters. `torch.device("meta")` would also catch the tensors with which RegNet computes its
    widths."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        placed = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **placed})
