"""What a cached row depends on, as one digest: a cache with the same key holds the same rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch
from torch import nn

from snowmelt_trainer.backbones import Cut
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.data.augmentation import RECIPE
from snowmelt_trainer.data.transforms import View

LIBRARIES = ("torch", "torchvision", "pillow", "numpy")


@dataclass(frozen=True)
class Prefix:
    """The part of a key that all views of a stage share."""

    weights: str
    """Digest of the prefix's parameters and buffers, by name."""
    code: str
    """Its operations, in order, up to the cut."""
    precision: Precision
    device: str
    """cpu or cuda: their last bits differ."""
    libraries: tuple[str, ...]

    @classmethod
    def of(cls, cut: Cut, precision: Precision, device: torch.device) -> Prefix:
        """Of a cut that has a prefix."""
        if cut.prefix is None:
            raise ValueError("there is no prefix to make a key of")
        libraries = tuple(f"{name} {version(name)}" for name in LIBRARIES)
        return cls(_weights(cut.prefix), f"{cut.at}\n{cut.prefix.graph}", precision, device.type, libraries)


def rows_key(prefix: Prefix, view: View, *, content: str, origin: int, number: int | None) -> str:
    """The key of one view's rows. `content` is the digest of the data set's files; `origin` and `number` say which
    variation it is, `number` None being the plain image."""
    shown = asdict(view) if number is not None else asdict(view) | {"augmentation": "None", "seed": 0}
    turn = None if number is None else (RECIPE, origin, number)
    document = json.dumps([asdict(prefix), shown, content, turn], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def _weights(prefix: nn.Module) -> str:
    sha256 = hashlib.sha256()
    for name, tensor in sorted(prefix.state_dict().items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()
