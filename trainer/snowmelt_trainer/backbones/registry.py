"""torchvision's own registry of classifiers. Nothing here builds a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torchvision
from torchvision.models import WeightsEnum, get_model_weights, list_models

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError


@dataclass(frozen=True)
class ArchitectureInfo:
    """What is known of an architecture from its published weights."""

    name: str
    weights: tuple[str, ...]
    """Names of published weights, the default one first."""
    num_params: int
    """Parameters, with the published head."""
    min_image_size: int
    """Smallest height and width in pixels that the published weights take."""


def architectures() -> list[str]:
    """Every classification builder of the installed torchvision, sorted by name."""
    return list_models(module=torchvision.models)


def weights_names(architecture: str) -> list[str]:
    """Names of the published weights, such as IMAGENET1K_V1; `DEFAULT` is an alias of one of them.

    Raises:
        RunError: InvalidConfig, when there is no such architecture.
    """
    return [weights.name for weights in _weights_enum(architecture)]


def architecture_info(architecture: str) -> ArchitectureInfo:
    """Size and weights of an architecture, without building it.

    Raises:
        RunError: InvalidConfig, when there is no such architecture.
    """
    published = list(_weights_enum(architecture))
    default = _weights_enum(architecture)["DEFAULT"]
    names = (default.name, *(weights.name for weights in published if weights is not default))
    return ArchitectureInfo(
        name=architecture,
        weights=names,
        num_params=int(_meta(default)["num_params"]),
        min_image_size=min(max(_meta(weights)["min_size"]) for weights in published),
    )


def published_weights(architecture: str, name: str) -> WeightsEnum:
    """The published weights of that name, or `DEFAULT`.

    Raises:
        RunError: InvalidConfig, when there is no such architecture; WeightsNotFound, when it has no such weights.
    """
    enum = _weights_enum(architecture)
    try:
        return enum[name]
    except KeyError:
        raise RunError(
            Reason.WEIGHTS_NOT_FOUND,
            f"spec.backbone.weights: {architecture} has no weights '{name}'; "
            f"there are: {', '.join(weights_names(architecture))}, DEFAULT, None",
        ) from None


def _weights_enum(architecture: str) -> type[WeightsEnum]:
    known = architectures()
    if architecture not in known:
        nearest = get_close_matches(architecture, known, n=3, cutoff=0.0)
        raise RunError(
            Reason.INVALID_CONFIG,
            f"spec.backbone.architecture: torchvision {torchvision.__version__} has no classifier '{architecture}'; "
            f"nearest: {', '.join(nearest)}",
        )
    enum: type[WeightsEnum] = get_model_weights(architecture)
    return enum


def _meta(weights: WeightsEnum) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = weights.meta
    return meta
