"""Weights that every contender starts from: pretrained here, once, on five classes of Fashion-MNIST, and cached."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from bench.tasks.images import PRETRAINED, pretraining_images
from bench.tasks.places import cache_root
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING

IMAGE_SIZE = 64
BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the versions of the libraries."""

    of_each: int = 5000
    epochs: int = 2
    learning_rate: float = 2e-3
    seed: int = 0
    bfloat16: bool = True


RECIPES = {
    "resnet18": Recipe(),
    "resnet50": Recipe(of_each=2000),
    # Grouped convolutions take many times as long in bfloat16 on a processor.
    "mobilenet_v3_large": Recipe(epochs=3, bfloat16=False),
    # A transformer of 86 million parameters learns little from scratch in what a CPU affords: the page says so.
    "vit_b_16": Recipe(of_each=500, epochs=3, learning_rate=2e-4),
}


def weights_of(architecture: str) -> Path:
    """The safetensors file with the network's weights; pretrains first where it is not cached.

    Raises:
        KeyError: there is no recipe for this architecture.
    """
    recipe = RECIPES[architecture]
    versions = f"torch{torch.__version__.partition('+')[0]}-torchvision{torchvision.__version__.partition('+')[0]}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = cache_root() / "weights" / f"{architecture}-{versions}{'' if device == 'cpu' else '-cuda'}.safetensors"
    if not path.exists():
        print(f"pretraining {architecture}, once: {recipe}", flush=True)
        model = _pretrained(architecture, recipe, device)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".writing")
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, beside, {"format": "pt", "recipe": json.dumps(asdict(recipe))})
        beside.rename(path)
    return path


def _pretrained(architecture: str, recipe: Recipe, device: str) -> nn.Module:
    pixels, labels = pretraining_images(recipe.of_each)
    images, targets = torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)
    torch.manual_seed(recipe.seed)
    sized = {"image_size": IMAGE_SIZE} if architecture.startswith("vit") else {}
    model: nn.Module = get_model(architecture, weights=None, num_classes=len(PRETRAINED), **sized)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.05, fused=True)
    steps = recipe.epochs * -(-len(targets) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    for epoch in range(recipe.epochs):
        started, right = time.monotonic(), 0
        for ids in torch.split(torch.randperm(len(targets)).to(device), BATCH):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=recipe.bfloat16):
                logits = model(_inputs(images[ids]))
            loss = functional.cross_entropy(logits.float(), targets[ids], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == targets[ids]).sum())
        share, seconds = right / len(targets), time.monotonic() - started
        print(f"{architecture} epoch {epoch + 1}/{recipe.epochs}: accuracy {share:.3f}, {seconds:.0f} s", flush=True)
    return model.eval().cpu()


def _inputs(grey: Tensor) -> Tensor:
    """What the trainer's View makes of the same pixels in a file, scaled by torch instead of Pillow."""
    mean = torch.tensor(IMAGENET_PREPROCESSING.mean, device=grey.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_PREPROCESSING.std, device=grey.device).view(1, 3, 1, 1)
    scaled = functional.interpolate(grey.unsqueeze(1).float() / 255, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    return ((scaled - mean) / std).contiguous(memory_format=torch.channels_last)
