"""The catalog of backbones: torchvision's registry of classification builders, for readers without torch."""

from __future__ import annotations

import json

from torchvision import models
from torchvision.models._api import WeightsEnum, get_model_weights, list_models


def catalog_json() -> str:
    """contract/architectures.json, one architecture a line, in the order of the names."""
    lines = [f"  {json.dumps(name)}: {json.dumps(_entry(name))}" for name in sorted(_builders())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _builders() -> list[str]:
    names: list[str] = list_models(module=models)
    return names


def _entry(name: str) -> dict[str, object]:
    weights: type[WeightsEnum] = get_model_weights(name)
    default = weights.DEFAULT  # type: ignore[attr-defined]
    return {
        "weights": [member.name for member in weights],
        "default": default.name,
        "parameters": default.meta["num_params"],
        "minImageSize": min(min(member.meta["min_size"]) for member in weights),
    }
