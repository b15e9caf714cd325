"""Copies of what training changes with its next step, taken between two steps and written down beside training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.training.activations.resources import free_disk, local_disk
from snowmelt_trainer.training.packing import as_safetensors, pack_optimizer, write_safetensors

log = logging.getLogger(__name__)

_CPU = torch.device("cpu")
DEVICE_SHARE = 0.05
"""Of an accelerator's free memory, how much copies may take there for a while."""
DISK_SHARE = 0.1
"""The same of the local disk."""
SMALL = 2**20
"""Bytes that are no trouble in memory."""
PIECE = 2**20
"""Bytes read from a file at once."""


class Copies(Protocol):
    """Of some tensors of the model, and of all that the optimizer goes on from, where it was asked for."""

    def pack_model(self, file: BinaryIO) -> None:
        """As safetensors, once; nothing where there are no tensors."""

    def pack_optimizer(self, file: BinaryIO) -> None:
        """What `unpack_optimizer` loads, once."""


def take_copies(
    model: nn.Module,
    changing: Collection[str],
    optimizer: torch.optim.Optimizer | None = None,
    last_step: Mapping[str, Tensor] | None = None,
) -> Copies:
    """Of the tensors of the model that are named, and of all of the optimizer's, where there is one.

    `last_step` are the weights that it goes on from, where the model holds their average.

    On an accelerator with room for them they lie there, where copying takes a thousandth of the time that the way to
    main memory does. What a processor trains is packed into files at once: they take no memory of the steps that
    follow, and twice the time of copies that do (80 ms for 180 MB), but nothing is left to pack beside training.
    """
    chosen = {name: tensor for name, tensor in model.state_dict().items() if name in changing}
    state, weights = optimizer.state_dict() if optimizer is not None else {}, dict(last_step or {})
    size = _bytes([chosen, state, weights])
    device = next((tensor.device for tensor in chosen.values()), _CPU)
    if device != _CPU:
        return TensorCopies.of(chosen, state, weights, device if has_room(device, size, DEVICE_SHARE) else _CPU)
    if size > SMALL:
        try:
            directory = local_disk()
            if size <= DISK_SHARE * free_disk(directory):
                return FileCopies.of(chosen, state, weights, directory)
            log.info("%s has little room: a checkpoint's copies stay in memory", directory)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' writers have their own
            log.warning("a checkpoint's copies stay in memory, since the local disk does not take them: %s", error)
    return TensorCopies.of(chosen, state, weights, _CPU)


@dataclass(frozen=True)
class FileCopies:
    """Copies in files without a name, which go with whoever holds them."""

    model: BinaryIO
    optimizer: BinaryIO

    @classmethod
    def of(
        cls, model: dict[str, Tensor], optimizer: dict[str, Any], last_step: dict[str, Tensor], directory: Path
    ) -> FileCopies:
        """Raises OSError, RuntimeError or SafetensorError where the directory does not take them."""
        with TemporaryDirectory(prefix="snowmelt-checkpoint-", dir=directory) as folder:
            first, second = Path(folder) / "model", Path(folder) / "optimizer"
            write_safetensors(first, model)
            with second.open("wb") as file:
                pack_optimizer(file, optimizer, last_step)
            return cls(first.open("rb"), second.open("rb"))

    def pack_model(self, file: BinaryIO) -> None:
        with self.model:
            shutil.copyfileobj(self.model, file, PIECE)

    def pack_optimizer(self, file: BinaryIO) -> None:
        with self.optimizer:
            shutil.copyfileobj(self.optimizer, file, PIECE)


@dataclass(frozen=True)
class TensorCopies:
    """Copies as tensors, on the accelerator or in main memory. What is packed is let go, so that training and packing
    do not need room for all of it at once."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """Its state_dict."""
    last_step: dict[str, Tensor]
    taken: torch.cuda.Event | None = None
    """When the accelerator has made the copies that lie there."""

    @classmethod
    def of(
        cls, model: dict[str, Tensor], optimizer: dict[str, Any], last_step: dict[str, Tensor], device: torch.device
    ) -> TensorCopies:
        copies = cls(_copied(model, device), _copied(optimizer, device), _copied(last_step, device))
        if device == _CPU:
            return copies
        taken = torch.cuda.Event()  # type: ignore[no-untyped-call]
        taken.record(torch.cuda.current_stream(device))
        return replace(copies, taken=taken)

    def pack_model(self, file: BinaryIO) -> None:
        with self._aside():
            data = as_safetensors(_handed_over(self.model))
        file.write(data)

    def pack_optimizer(self, file: BinaryIO) -> None:
        with self._aside():
            kept = [_handed_over(self.optimizer), _handed_over(self.last_step)]
            optimizer, last_step = _copied(kept, _CPU) if self.taken else kept
        del kept
        pack_optimizer(file, optimizer, last_step)

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
