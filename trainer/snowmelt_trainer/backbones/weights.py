"""Puts pretrained weights into a network whose head is yet the published one; the head itself is never loaded."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from urllib.error import URLError

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3, VisionTransformer, WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from snowmelt_trainer.backbones.checkpoint_file import Checkpoint, read_checkpoint
from snowmelt_trainer.backbones.head import head_name
from snowmelt_trainer.backbones.lookalike import Shapes, lookalike, shapes_of
from snowmelt_trainer.backbones.registry import published_weights
from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.tensors import load_state

PREPROCESSING_KEY = "snowmelt.preprocessing"
"""Entry of a safetensors file's metadata: Preprocessing as JSON."""

_PREPROCESSING = TypeAdapter(Preprocessing)
_OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_SHOWN = 2

Fetch = Callable[[WeightsEnum], Checkpoint]


def load_weights(
    model: nn.Module, backbone: Backbone, *, image_size: int, volumes_root: str, fetch: Fetch
) -> Preprocessing | None:
    """Loads what `backbone` asks for into all of the model but its head; `fetch` gets published weights.

    Returns how inputs were prepared when the weights were trained; None where that is not said, or for no weights at
    all.

    Raises:
        RunError: WeightsNotFound, WeightsMismatch, WeightsUnsafe, ChecksumMismatch or InvalidConfig.
    """
    preprocessing: Preprocessing | None = None
    if backbone.weights_from is not None:
        checkpoint = read_checkpoint(backbone.weights_from, volumes_root=volumes_root)
        preprocessing = _preprocessing_in(checkpoint)
    elif backbone.weights_name is not None:
        published = published_weights(backbone.architecture, backbone.weights_name)
        checkpoint = fetch(published)
        preprocessing = _preprocessing_of(published)
    else:
        return None
    _load(model, checkpoint, backbone.architecture, image_size)
    if isinstance(model, GoogLeNet | Inception3):
        # Their weights expect it, and torchvision's builders set it with the weights, too.
        model.transform_input = True
    return preprocessing


def download(published: WeightsEnum) -> Checkpoint:
    """From where torchvision has them, into torch's folder of this machine, where they are found the next time.

    Raises:
        RunError: WeightsNotFound or ChecksumMismatch.
    """
    try:
        state = published.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (URLError, OSError) as error:
        detail = getattr(error, "reason", None) or error.strerror or error
        raise RunError(
            Reason.WEIGHTS_NOT_FOUND,
            f"spec.backbone.weights: {published!r} cannot be downloaded from {published.url}: {detail}; where the "
            "cluster cannot reach it, put the file on a volume and name it in spec.backbone.weightsFrom",
        ) from error
    except RuntimeError as error:
        if "hash" not in str(error):
            raise
        raise RunError(Reason.CHECKSUM_MISMATCH, f"spec.backbone.weights: {published!r}: {error}") from error
    return Checkpoint(repr(published), dict(state), module_versions=getattr(state, "_metadata", None))


def _preprocessing_of(published: WeightsEnum) -> Preprocessing:
    preset = published.transforms()
    return Preprocessing(mean=tuple(preset.mean), std=tuple(preset.std), interpolation=preset.interpolation.value)


def _preprocessing_in(checkpoint: Checkpoint) -> Preprocessing | None:
    text = checkpoint.metadata.get(PREPROCESSING_KEY)
    if text is None:
        return None
    try:
        return _PREPROCESSING.validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise RunError(
            Reason.WEIGHTS_MISMATCH, f"{checkpoint.origin}: metadata {PREPROCESSING_KEY}: {where}: {problem['msg']}"
        ) from error


def _load(model: nn.Module, checkpoint: Checkpoint, architecture: str, image_size: int) -> None:
    head = head_name(model)
    tensors = _as_the_model_names_them(model, checkpoint, image_size)
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{head}.")}
    _check_fit(model, shapes_of(backbone), checkpoint.origin, architecture)
    broken = [name for name, tensor in backbone.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise RunError(Reason.WEIGHTS_MISMATCH, f"{checkpoint.origin}: {broken[0]} holds NaN or infinite values")
    load_state(model, {**model.state_dict(), **backbone}, versions=checkpoint.module_versions)


def _as_the_model_names_them(model: nn.Module, checkpoint: Checkpoint, image_size: int) -> dict[str, Tensor]:
    tensors = {
        _OLD_DENSENET_KEY.sub(r"\1\2", name): tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith(_AUXILIARY)
    }
    embedding = tensors.get("encoder.pos_embedding")
    if isinstance(model, VisionTransformer) and embedding is not None and embedding.dim() == 3:
        try:
            return dict(interpolate_embeddings(image_size, model.patch_size, OrderedDict(tensors)))
        except ValueError as error:
            raise RunError(
                Reason.WEIGHTS_MISMATCH, f"{checkpoint.origin}: encoder.pos_embedding does not fit: {error}"
            ) from error
    return tensors


def _check_fit(model: nn.Module, given: Shapes, origin: str, architecture: str) -> None:
    """Raises WeightsMismatch unless the tensors are those of the model without its head."""
    head = head_name(model)
    expected = {n: shape for n, shape in shapes_of(model.state_dict()).items() if not n.startswith(f"{head}.")}
    missing = [name for name in expected if name not in given and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in given if name not in expected]
    misshaped = [
        f"{name} is {given[name]} instead of {expected[name]}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    problems = [
        f"{kind} {', '.join(names[:_SHOWN])}" + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape:", misshaped))
        if names
    ]
    if not problems:
        return
    alike = lookalike(given)
    hint = f"; it looks like {alike}: set spec.backbone.architecture to that" if alike else ""
    raise RunError(Reason.WEIGHTS_MISMATCH, f"{origin} does not fit {architecture}: {'; '.join(problems)}{hint}")
