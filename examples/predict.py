"""Classify images with a model that Snowmelt delivered. Needs torch, torchvision, safetensors and Pillow; not Snowmelt.

python examples/predict.py MODEL_FOLDER IMAGE [IMAGE ...]     prints: image, class, probability
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.transforms import functional

BATCH = 64


def load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network in evaluation mode, and model.json: its classes and how it wants its images."""
    config = json.loads((folder / "model.json").read_text())
    model = get_model(config["architecture"], weights=None, **config["options"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), config


def prepared(file: Path, config: dict[str, Any]) -> Tensor:
    """The centre square of an image, (3, imageSize, imageSize), as in training."""
    size, wanted = config["imageSize"], config["preprocessing"]
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    square = ImageOps.fit(image, (size, size), Image.Resampling[wanted["interpolation"].upper()])
    return functional.normalize(functional.to_tensor(square), wanted["mean"], wanted["std"])


@torch.inference_mode()
def main(folder: str, *files: str) -> None:
    model, config = load(Path(folder))
    for begin in range(0, len(files), BATCH):
        some = files[begin : begin + BATCH]
        images = torch.stack([prepared(Path(file), config) for file in some])
        for file, probabilities in zip(some, model(images).softmax(dim=1), strict=True):
            probability, winner = probabilities.max(dim=0)
            print(file, config["classes"][int(winner)], f"{float(probability):.3f}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
