"""`python -m hack.pretrain`: pretrain the demo's backbone on letters rendered from fonts, and write its weights to
examples/backbones/.

The demo fine-tunes on handwritten digits, so nothing here has seen a digit. Takes a few minutes on one CPU core. The
same fonts, seed and versions give the same images; the file's metadata and the README beside it say what was used and
what came out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

from hack.data.letters import LETTERS, font_names, installed_fonts, rendered_set
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING

OUT = Path(__file__).parent.parent / "examples" / "backbones"
HELD_OUT_FONTS = 0.1
BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the fonts and the versions of the libraries."""

    architecture: str
    image_size: int
    per_letter: int
    epochs: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Letters:
    """Rendered images, (N, 8, 8) uint8, and their letters."""

    images: Tensor
    labels: Tensor

    @classmethod
    def render(cls, fonts: list[str], per_letter: int, seed: int) -> Letters:
        images, labels = rendered_set(fonts, per_letter, seed)
        return cls(torch.from_numpy(images), torch.from_numpy(labels))

    def batches(self, order: Tensor, image_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The network's input as the trainer's View would make it of the same pixels in a file."""
        mean = torch.tensor(IMAGENET_PREPROCESSING.mean).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_PREPROCESSING.std).view(1, 3, 1, 1)
        for ids in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            grey = self.images[ids].unsqueeze(1).float() / 255
            scaled = functional.interpolate(grey, size=(image_size, image_size), mode="bilinear", align_corners=False)
            yield (scaled - mean) / std, self.labels[ids]


def train(recipe: Recipe, letters: Letters) -> nn.Module:
    """AdamW with one cycle of the learning rate over all epochs."""
    torch.manual_seed(recipe.seed)
    model: nn.Module = get_model(recipe.architecture, weights=None, num_classes=len(LETTERS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.05)
    steps = recipe.epochs * -(-len(letters.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    for epoch in range(recipe.epochs):
        started, right = time.monotonic(), 0
        model.train()
        for images, labels in letters.batches(torch.randperm(len(letters.labels)), recipe.image_size):
            logits = model(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == labels).sum())
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch + 1}/{recipe.epochs}: accuracy {right / len(letters.labels):.3f}, {seconds:.0f} s",
            flush=True,
        )
    return model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, letters: Letters, image_size: int) -> tuple[float, float]:
    """Share of letters named rightly, and the same where upper and lower case count as one."""
    order = torch.arange(len(letters.labels))
    named = torch.cat([model(images).argmax(1) for images, _ in letters.batches(order, image_size)])
    exact = (named == letters.labels).float().mean().item()
    return exact, (named % 26 == letters.labels % 26).float().mean().item()


def write(model: nn.Module, recipe: Recipe, fonts: list[str], figures: tuple[float, float], out: Path) -> Path:
    """Weights with metadata; the head for the 52 letters is among them, and fine-tuning replaces it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"letters-{recipe.architecture}.safetensors"
    metadata = {
        "format": "pt",
        "architecture": recipe.architecture,
        "classes": json.dumps(list(LETTERS)),
        "preprocessing": json.dumps(
            {
                "mean": IMAGENET_PREPROCESSING.mean,
                "std": IMAGENET_PREPROCESSING.std,
                "interpolation": IMAGENET_PREPROCESSING.interpolation,
                "imageSize": recipe.image_size,
            }
        ),
        "fonts": json.dumps(font_names(fonts)),
        "recipe": json.dumps(vars(recipe)),
        "accuracy": f"{figures[0]:.4f}",
        "accuracyIgnoringCase": f"{figures[1]:.4f}",
        "torch": torch.__version__,
    }
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path, metadata)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="shufflenet_v2_x0_5")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--per-letter", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    recipe = Recipe(**arguments)
    fonts = installed_fonts()
    shuffled = [fonts[i] for i in np.random.default_rng(recipe.seed).permutation(len(fonts))]
    held_out = sorted(shuffled[: max(1, int(len(fonts) * HELD_OUT_FONTS))])
    trained_on = sorted(set(fonts) - set(held_out))
    print(f"rendering letters from {len(trained_on)} fonts, {len(held_out)} held out", flush=True)
    letters = Letters.render(trained_on, recipe.per_letter, recipe.seed)
    model = train(recipe, letters)
    figures = accuracy(model, Letters.render(held_out, 40, recipe.seed + 1), recipe.image_size)
    path = write(model, recipe, trained_on, figures, out)
    print(f"fonts never seen: accuracy {figures[0]:.3f}, ignoring case {figures[1]:.3f}")
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
