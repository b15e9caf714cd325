"""What a checkpoint holds, as bytes: tensors and numbers only, so that reading one runs no code of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.tensors import load_state

_CPU = torch.device("cpu")
STAGED_SHARE = 0.05
"""Of an accelerator's free memory, how much copies of what training changes may take there for a while."""


@dataclass(frozen=True)
class Snapshot:
    """Copies of what training changes with its next step.

    On an accelerator with room for them they lie there, where copying takes a thousandth of the time that the way to
    main memory does; whoever packs them goes that way, beside training. Else they lie in main memory. What is packed is
    let go, so that training and packing do not need room for all of it at once.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """Its state_dict."""
    last_step: dict[str, Tensor]
    """The weights that the optimizer goes on from, where the model holds their average."""
    taken: torch.cuda.Event | None = None
    """When the accelerator has made the copies that lie there."""

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        changing: Collection[str],
        optimizer: torch.optim.Optimizer | None = None,
        last_step: Mapping[str, Tensor] | None = None,
    ) -> Snapshot:
        """Of the tensors of the model that are named, and of all of the optimizer's, where there is one."""
        chosen = {name: tensor for name, tensor in model.state_dict().items() if name in changing}
        everything = {
            "model": chosen,
            "optimizer": optimizer.state_dict() if optimizer is not None else {},
            "last_step": dict(last_step or {}),
        }
        device = next((tensor.device for tensor in chosen.values()), _CPU)
        if not has_room(device, _bytes(everything), STAGED_SHARE):
            return cls(**_copied(everything, _CPU))
        copies, taken = _copied(everything, device), torch.cuda.Event()  # type: ignore[no-untyped-call]
        taken.record(torch.cuda.current_stream(device))
        return cls(**copies, taken=taken)

    def pack_model(self, file: BinaryIO) -> None:
        """As safetensors, once; nothing where there are no tensors."""
        with self._aside():
            data = _as_safetensors(_handed_over(self.model))
        file.write(data)

    def pack_optimizer(self, file: BinaryIO) -> None:
        """What `unpack_optimizer` loads, once."""
        with self._aside():
            kept = {"optimizer": _handed_over(self.optimizer), "lastStep": _handed_over(self.last_step)}
            packed = _copied(kept, _CPU) if self.taken else kept
        torch.save(packed, file)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What copies lie on an accelerator are fetched in a queue of their own, so that neither waits for a step nor
        makes one wait."""
        if self.taken is None:
            yield
            return
        stream = torch.cuda.Stream(self.taken.device)  # type: ignore[no-untyped-call]
        stream.wait_event(self.taken)
        with torch.cuda.stream(stream):
            yield


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


def _as_safetensors(tensors: dict[str, Tensor]) -> bytes:
    """Empty where there are none. Replaces the tensors given, one by one, by such as safetensors takes."""
    for name, tensor in tensors.items():
        tensors[name] = tensor.detach().cpu().contiguous()
    return save_tensors(tensors) if tensors else b""


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


def _copied(value: Any, device: torch.device) -> Any:
    """The same nest of dicts and lists, its tensors on `device` and shared with nobody."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _copied(one, device) for key, one in value.items()}
    if isinstance(value, list):
        return [_copied(one, device) for one in value]
    return value


def _handed_over(held: dict[str, Any]) -> dict[str, Any]:
    """All of it; whoever held it holds nothing any more."""
    given = dict(held)
    held.clear()
    return given


def _bytes(value: Any) -> int:
    """Of all tensors of a nest of dicts and lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict | list):
        return sum(map(_bytes, value.values() if isinstance(value, dict) else value))
    return 0
