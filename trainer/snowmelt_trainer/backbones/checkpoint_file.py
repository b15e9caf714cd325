"""Weights in a file: a .safetensors file, or a .pt/.pth file with a state_dict. Nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from snowmelt_trainer.contract.backbone import WeightsFrom
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.uri import claim_of, to_path
from snowmelt_trainer.errors import RunError, first_line

FIELD = "spec.backbone.weightsFrom"
MAX_BYTES = 16 * 2**30
"""Several times the largest classifier of torchvision."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors on the CPU, and the text that a safetensors file carries beside them."""

    origin: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    module_versions: Mapping[str, Any] | None = None
    """What torch notes of the modules' versions in a state_dict; None where the file does not say."""


def read_checkpoint(weights_from: WeightsFrom, *, volumes_root: str) -> Checkpoint:
    """Reads the file, whose SHA-256 is compared before anything in it is parsed.

    Raises:
        RunError: WeightsNotFound (absent, unreadable, damaged), ChecksumMismatch, WeightsUnsafe (more than tensors),
            WeightsMismatch (tensors, but no state_dict), InvalidConfig (not a kind of file that Snowmelt reads).
    """
    path = _locate(weights_from.uri, volumes_root)
    readers = {".safetensors": _read_safetensors, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise RunError(Reason.INVALID_CONFIG, f"{FIELD}.uri: {path} must end in {', '.join(readers)}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(Reason.WEIGHTS_MISMATCH, f"{FIELD}.uri: {path} is larger than {MAX_BYTES // 2**30} GiB")
        if weights_from.sha256 is not None:
            _verify(path, weights_from.sha256)
        return readers[path.suffix](path)
    except OSError as error:
        raise RunError(
            Reason.WEIGHTS_NOT_FOUND,
            f"{FIELD}.uri: {path} cannot be read: {error.strerror or error}; check the path and the volume's contents",
        ) from error


def _locate(uri: str, volumes_root: str) -> Path:
    try:
        path = to_path(uri, volumes_root)
    except ValueError as error:
        raise RunError(Reason.INVALID_CONFIG, f"{FIELD}.uri: {error}") from error
    claim = claim_of(uri)
    if claim is not None and not path.resolve().is_relative_to((Path(volumes_root) / claim).resolve()):
        raise RunError(Reason.WEIGHTS_NOT_FOUND, f"{FIELD}.uri: {path} is a link that leads out of its volume")
    return path


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise RunError(Reason.CHECKSUM_MISMATCH, f"{FIELD}.sha256: {path} has {actual}, the spec expects {expected}")


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return Checkpoint(str(path), tensors, file.metadata() or {})
    except SafetensorError as error:
        raise _damaged(path, "safetensors", error) from error


def _read_torch(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _refuse_if_unsafe(path, error)
        raise _damaged(path, "PyTorch", error) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, "PyTorch", error) from error
    return _unwrap(path, content)


def _refuse_if_unsafe(path: Path, error: pickle.UnpicklingError) -> None:
    try:
        refused = ", ".join(sorted(get_unsafe_globals_in_checkpoint(path))[:3])
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # the format before PyTorch 1.6 cannot be inspected
        refused = ""
    if refused or "GLOBAL" in str(error):
        raise RunError(
            Reason.WEIGHTS_UNSAFE,
            f"{FIELD}.uri: {path} holds more than tensors ({refused or 'Python objects'}), "
            "and loading it could run code; save model.state_dict() alone, best as safetensors",
        ) from error


def _damaged(path: Path, kind: str, error: Exception) -> RunError:
    said = first_line(error)[:200]
    return RunError(Reason.WEIGHTS_NOT_FOUND, f"{FIELD}.uri: {path} is no intact {kind} file: {said}")


def _unwrap(path: Path, content: Any) -> Checkpoint:
    """The state_dict, from within the training script's dictionary and without the prefixes that DDP and compile
    add."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise RunError(
            Reason.WEIGHTS_MISMATCH, f"{FIELD}.uri: {path} holds no state_dict, alone or under {', '.join(_WRAPPERS)}"
        )
    versions = getattr(content, "_metadata", None) if isinstance(content, OrderedDict) else None
    tensors = {str(name): tensor for name, tensor in content.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            versions = None
    return Checkpoint(str(path), tensors, module_versions=versions)
