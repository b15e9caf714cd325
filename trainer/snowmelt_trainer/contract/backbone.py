"""Which pretrained network is fine-tuned, and where its weights come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from snowmelt_trainer.contract import catalog
from snowmelt_trainer.contract.base import Contract, Rule, not_supported_yet
from snowmelt_trainer.contract.text import Form
from snowmelt_trainer.contract.uri import SUPPORTED_URI_CEL, Uri, is_supported

ArchitectureName = Annotated[
    str, AfterValidator(catalog.known_architecture), Field(json_schema_extra={"enum": [*catalog.architectures()]})
]
WeightsName = Annotated[
    str,
    AfterValidator(catalog.known_weights),
    Field(json_schema_extra={"enum": [catalog.DEFAULT, catalog.FROM_SCRATCH, *catalog.weights_names()]}),
]
Sha256 = Annotated[
    str,
    StringConstraints(max_length=64),
    Form(r"^[0-9a-f]{64}$", "a SHA-256: 64 hexadecimal digits in lower case, as `sha256sum FILE` prints them"),
]


def _published(weights: str) -> Rule:
    """These weights exist for the architecture: a rule for each name, since a rule's message is fixed."""
    having = catalog.architectures_with(weights)
    names = ", ".join(f"'{name}'" for name in having)
    return Rule(
        field="weights",
        holds=lambda self: self.weights != weights or self.architecture in having,
        cel=f"!has(self.weights) || self.weights != '{weights}' || self.architecture in [{names}]",
        message=f"weights {weights} do not exist for this architecture: set DEFAULT, or see `snowmelt backbones`",
    )


class WeightsFrom(Contract):
    """A checkpoint file, used instead of torchvision's published weights."""

    uri: Uri
    """A .safetensors file, or a .pt/.pth file holding a state_dict (loaded with weights_only=True)."""
    sha256: Sha256 | None = None
    """The file's SHA-256 in lower-case hexadecimal; the run fails when it differs."""

    rules = (
        Rule(
            field="uri",
            holds=lambda self: is_supported(self.uri),
            cel=SUPPORTED_URI_CEL,
            message="uri is not supported yet: only file:///… and pvc://claim/… locations without '..' can be read",
        ),
    )


class Candidate(Contract):
    """Another backbone to consider."""

    architecture: ArchitectureName
    """A torchvision classification builder."""
    weights: WeightsName | None = None
    """A torchvision weights name, DEFAULT, or None."""
    weights_from: WeightsFrom | None = None
    """A checkpoint file instead of published weights."""


class Backbone(Contract):
    """The network to fine-tune: a torchvision architecture and the weights it starts from."""

    architecture: ArchitectureName
    """A torchvision classification builder; `snowmelt backbones` lists them."""
    weights: WeightsName | None = None
    """A torchvision weights name such as IMAGENET1K_V2, DEFAULT for the best published, or None to train from scratch.
    Absent means DEFAULT, unless weightsFrom is given."""
    weights_from: WeightsFrom | None = None
    """A checkpoint file instead of published weights. Its classifier head may have any number of classes, or be
    missing: it is replaced."""
    candidates: Annotated[tuple[Candidate, ...], Field(max_length=8)] = ()
    """Other backbones to consider. Not supported yet."""

    rules = (
        *(_published(weights) for weights in catalog.weights_names()),
        Rule(
            field="weightsFrom",
            holds=lambda self: self.weights is None or self.weights_from is None,
            cel="!(has(self.weights) && has(self.weightsFrom))",
            message="weights and weightsFrom exclude each other: remove one of them",
        ),
        not_supported_yet(
            "spec.backbone.candidates",
            field="candidates",
            holds=lambda self: not self.candidates,
            cel="!has(self.candidates) || size(self.candidates) == 0",
        ),
    )

    @property
    def weights_name(self) -> str | None:
        """The torchvision weights to load (`DEFAULT` where nothing was said); None for a file or from scratch."""
        if self.weights_from is not None or self.weights == catalog.FROM_SCRATCH:
            return None
        return self.weights or catalog.DEFAULT

    @property
    def from_scratch(self) -> bool:
        """Whether nothing was learned before."""
        return self.weights_from is None and self.weights == catalog.FROM_SCRATCH
