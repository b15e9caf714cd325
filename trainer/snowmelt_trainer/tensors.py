"""Tensors by name, put into a network, and as they lie in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], *, versions: Mapping[str, Any] | None = None) -> None:
    """`model.load_state_dict` for tensors that were kept without the module versions that a state_dict carries.

    A safetensors file and a plain dict carry none, and MNASNet refuses to load without; the model's own are assumed
    then.

    Raises:
        RuntimeError: when names or shapes are not the model's.
    """
    state = OrderedDict(tensors)
    own: Any = model.state_dict()
    state._metadata = versions or own._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state)


def flat(tensor: Tensor) -> Tensor:
    """All elements of a dense tensor, in the order in which they lie."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))
