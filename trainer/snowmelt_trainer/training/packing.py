"""What a checkpoint holds, as bytes: tensors and numbers only, so that reading one runs no code of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load, save, save_file
from torch import Tensor
from torch.utils.serialization import config

from snowmelt_trainer.tensors import load_state


@dataclass(frozen=True)
class Frozen:
    """The tensors that a stage leaves as they are."""

    pack: Callable[[], bytes]
    """Not the bytes themselves: they would stay in memory for the whole stage, and are needed once."""
    sha256: str

    @classmethod
    def of(cls, model: torch.nn.Module, changing: Collection[str]) -> Frozen | None:
        """All tensors of the model but those named; None when there are none."""

        def pack() -> bytes:
            return pack_model(model, without=changing)

        data = pack()
        return cls(pack, hashlib.sha256(data).hexdigest()) if data else None


def pack_model(model: torch.nn.Module, without: Collection[str] = ()) -> bytes:
    """All parameters and buffers but those named, as safetensors; empty where there are none."""
    return as_safetensors({name: tensor for name, tensor in model.state_dict().items() if name not in without})


def as_safetensors(tensors: dict[str, Tensor]) -> bytes:
    """Empty where there are none. Replaces the tensors given, one by one, by such as safetensors takes."""
    return save(_fit_to_save(tensors)) if tensors else b""


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """As `as_safetensors`, into a file, without bytes of all of it in memory.

    Raises:
        SafetensorError: the file cannot be written.
    """
    if tensors:
        save_file(_fit_to_save(tensors), path)
    else:
        path.touch()


def _fit_to_save(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in tensors.items():
        tensors[name] = tensor.detach().cpu().contiguous()
    return tensors


def unpack_model(model: torch.nn.Module, data: bytes) -> None:
    """Loads what `pack_model` packed into a model of the same shape."""
    load_state(model, load(data))


def pack_optimizer(file: BinaryIO, state: dict[str, Any], last_step: dict[str, Tensor]) -> None:
    """Writes an optimizer's state_dict and the weights that it goes on from, both in main memory."""
    with config.patch("save.compute_crc32", False):  # type: ignore[attr-defined]  # the manifest has a digest
        torch.save({"optimizer": state, "lastStep": last_step}, file)


def unpack_optimizer(optimizer: torch.optim.Optimizer, data: bytes) -> dict[str, Tensor]:
    """Loads what `pack_optimizer` packed into an optimizer over the same parameter groups; gives the weights
    that it goes on from."""
    packed: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    optimizer.load_state_dict(packed["optimizer"])
    last_step: dict[str, Tensor] = packed["lastStep"]
    return last_step


def joined(trained: bytes, frozen: bytes) -> bytes:
    """One file of two that hold different tensors; its bytes depend on the tensors alone."""
    return save({**load(frozen), **load(trained)})
