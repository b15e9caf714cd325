"""Where the fine-tuned model goes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from snowmelt_trainer.contract.base import Contract, Rule, not_supported_yet
from snowmelt_trainer.contract.uri import SUPPORTED_URI_CEL, Uri, is_supported


class ModelFormat(StrEnum):
    SAFE_TENSORS = "SafeTensors"
    """Tensors and nothing else; loading runs no code."""
    ONNX = "ONNX"
    """Not supported yet."""


class Output(Contract):
    """Where the model, its metrics and its checkpoints are written."""

    uri: Uri
    """A folder: file:///path or pvc://claim/path. The newest successful run's model lies directly in it; each run's
    state in .snowmelt/UID."""
    formats: Annotated[tuple[ModelFormat, ...], Field(min_length=1, max_length=4)] = (ModelFormat.SAFE_TENSORS,)
    """File formats of the model."""

    rules = (
        Rule(
            field="uri",
            holds=lambda self: is_supported(self.uri),
            cel=SUPPORTED_URI_CEL,
            message="uri is not supported yet: only file:///… and pvc://claim/… locations without '..' can be written",
        ),
        not_supported_yet(
            "spec.output.formats ONNX",
            field="formats",
            holds=lambda self: ModelFormat.ONNX not in self.formats,
            cel="!has(self.formats) || !self.formats.exists(f, f == 'ONNX')",
        ),
    )
