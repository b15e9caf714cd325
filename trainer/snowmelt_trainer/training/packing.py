"""What a checkpoint holds, as bytes: tensors and numbers only, so that reading one runs no code of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from snowmelt_trainer.backbones import load_state


@dataclass(frozen=True)
class Snapshot:
    """Copies, in main memory, of what training changes with its next step."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """Its state_dict."""
    last_step: dict[str, Tensor]
    """The weights that the optimizer goes on from, where the model holds their average."""

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        changing: Collection[str],
        optimizer: torch.optim.Optimizer,
        last_step: Mapping[str, Tensor],
    ) -> Snapshot:
        """Of the tensors of the model that are named, and of all of the optimizer's."""
        chosen = {name: tensor for name, tensor in model.state_dict().items() if name in changing}
        return cls(_copied(chosen), _copied(optimizer.state_dict()), _copied(dict(last_step)))

    def pack_model(self, file: BinaryIO) -> None:
        """As safetensors; nothing where there are no tensors."""
        file.write(_as_safetensors(self.model))

    def pack_optimizer(self, file: BinaryIO) -> None:
        """What `unpack_optimizer` loads."""
        torch.save({"optimizer": self.optimizer, "lastStep": self.last_step}, file)


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
    return _as_safetensors({name: tensor for name, tensor in model.state_dict().items() if name not in without})


def _as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Empty where there are none."""
    if not tensors:
        return b""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def unpack_model(model: torch.nn.Module, data: bytes) -> None:
    """Loads what `pack_model` packed into a model of the same shape."""
    load_state(model, load_tensors(data))


def unpack_optimizer(optimizer: torch.optim.Optimizer, data: bytes) -> dict[str, torch.Tensor]:
    """Loads what `Snapshot.pack_optimizer` packed into an optimizer over the same parameter groups; gives the weights
    that it goes on from."""
    packed: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    optimizer.load_state_dict(packed["optimizer"])
    last_step: dict[str, torch.Tensor] = packed["lastStep"]
    return last_step


def joined(trained: bytes, frozen: bytes) -> bytes:
    """One file of two that hold different tensors; its bytes depend on the tensors alone."""
    return save_tensors({**load_tensors(frozen), **load_tensors(trained)})


def _copied(value: Any) -> Any:
    """The same nest of dicts and lists, its tensors in main memory and shared with nobody."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_copied(one) for one in value]
    return value
