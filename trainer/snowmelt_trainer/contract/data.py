"""What the backbone is fine-tuned on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from snowmelt_trainer.contract.base import Contract, Rule, not_supported_yet
from snowmelt_trainer.contract.uri import SUPPORTED_URI_CEL, Uri, is_supported


class DataFormat(StrEnum):
    AUTO = "Auto"
    """ImageFolder for a folder of folders, Manifest for a .csv, .jsonl or .parquet file."""
    IMAGE_FOLDER = "ImageFolder"
    """One sub-folder for each class, named after it, holding images."""
    MANIFEST = "Manifest"
    """A CSV, JSON Lines or Parquet file with the columns uri, label and (optionally) split."""
    WEB_DATASET = "WebDataset"
    """Tar shards. Not supported yet."""


class Augmentation(StrEnum):
    AUTO = "Auto"
    """Light for fewer than 1,000 training images, Standard above; never a mirror image, which digits and letters do not
    survive."""
    NONE = "None"
    """Every epoch sees the same images."""
    LIGHT = "Light"
    """Small random crops and shifts."""
    STANDARD = "Standard"
    """Random resized crops, small rotations and colour jitter."""
    STRONG = "Strong"
    """TrivialAugmentWide and random erasing on top of Standard."""


class DataSource(Contract):
    """A place where images lie."""

    uri: Uri
    """A folder or manifest: file:///path or pvc://claim/path."""

    rules = (
        Rule(
            field="uri",
            holds=lambda self: is_supported(self.uri),
            cel=SUPPORTED_URI_CEL,
            message="uri is not supported yet: only file:///… and pvc://claim/… locations without '..' can be read",
        ),
    )


class Validation(Contract):
    """The data that decides when a stage ends and when to unfreeze more: a share of the training data, or its own."""

    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of the training data held out, class by class (stratified), drawn by optimization.seed. 0.1 when neither
    is given."""
    uri: Uri | None = None
    """A data set of its own instead of a share."""

    rules = (
        Rule(
            field="fraction",
            holds=lambda self: self.fraction is None or self.uri is None,
            cel="!(has(self.fraction) && has(self.uri))",
            message="validation takes either fraction or uri: remove one of them",
        ),
        Rule(
            field="uri",
            holds=lambda self: self.uri is None or is_supported(self.uri),
            cel=f"!has(self.uri) || ({SUPPORTED_URI_CEL})",
            message="uri is not supported yet: only file:///… and pvc://claim/… locations without '..' can be read",
        ),
    )


class Data(Contract):
    """The target data."""

    train: DataSource
    """The data to train on."""
    validation: Validation = Validation()
    """The data that decides when to unfreeze more and when to stop."""
    test: DataSource | None = None
    """Optional data for the final figure; it never decides anything."""
    format: DataFormat = DataFormat.AUTO
    """How the data lies on disk."""
    image_size: Annotated[int, Field(ge=16, le=1024)] = 224
    """Height and width in pixels that the network sees."""
    augmentation: Augmentation = Augmentation.AUTO
    """How much training images are varied at random."""

    rules = (
        not_supported_yet(
            "spec.data.format WebDataset",
            field="format",
            holds=lambda self: self.format is not DataFormat.WEB_DATASET,
            cel="!has(self.format) || self.format != 'WebDataset'",
        ),
    )
