"""The delivered model: plain torchvision weights in safetensors, and model.json that says how to use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model

from snowmelt_trainer.backbones.network import builder_options
from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.tensors import load_state

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "model.json"


def model_config(
    model: nn.Module, architecture: str, *, classes: Sequence[str], preprocessing: Preprocessing, image_size: int
) -> dict[str, Any]:
    """The content of model.json.

    `torchvision.models.get_model(architecture, **options)` builds the network that takes the weights; `classes[i]` is
    the meaning of logit i.
    """
    options = builder_options(architecture, image_size=image_size)
    if hasattr(model, "transform_input"):
        options["transform_input"] = model.transform_input
    return {
        "architecture": architecture,
        "options": {"num_classes": len(classes), **options},
        "classes": list(classes),
        "imageSize": image_size,
        "preprocessing": asdict(preprocessing),
        "snowmelt": version("snowmelt"),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def load_model(directory: str | Path) -> tuple[nn.Module, tuple[str, ...], Preprocessing]:
    """The delivered model in evaluation mode, the names of its classes, and how to prepare its input.

    Input: float32 (N, 3, imageSize, imageSize); output: logits (N, len(classes)).

    Raises:
        FileNotFoundError: when model.json or model.safetensors is not there.
        RuntimeError: when the weights are not those that model.json describes.
    """
    folder = Path(directory)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    model = get_model(config["architecture"], weights=None, **config["options"])
    load_state(model, load_file(folder / WEIGHTS_FILE))
    preprocessing = TypeAdapter(Preprocessing).validate_python(config["preprocessing"])
    return model.eval(), tuple(config["classes"]), preprocessing
