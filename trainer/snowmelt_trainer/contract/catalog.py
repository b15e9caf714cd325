"""What torchvision offers, without importing torch: `make generate` writes architectures.json from its registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

DEFAULT = "DEFAULT"
"""The best published weights of an architecture."""
FROM_SCRATCH = "None"
"""No weights at all."""


class Entry(BaseModel):
    """One torchvision classification builder."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid")

    weights: tuple[str, ...]
    """Names of its published weights, oldest first."""
    default: str
    """The weights that DEFAULT means."""
    parameters: int
    """Parameters of the network as published, with the head for ImageNet's 1,000 classes."""
    min_image_size: Annotated[int, Field(ge=1)]
    """Smallest height and width that torchvision states for it."""


@cache
def architectures() -> Mapping[str, Entry]:
    """Every architecture, by name, in alphabetical order."""
    text = resources.files("snowmelt_trainer.contract").joinpath("architectures.json").read_text("utf-8")
    return MappingProxyType(TypeAdapter(dict[str, Entry]).validate_json(text))


@cache
def architectures_with(weights: str) -> tuple[str, ...]:
    """The architectures for which weights of this name were published."""
    return tuple(name for name, entry in architectures().items() if weights in entry.weights)


@cache
def weights_names() -> tuple[str, ...]:
    """Every weights name that some architecture has, most common first."""
    names = {name for entry in architectures().values() for name in entry.weights}
    return tuple(sorted(names, key=lambda name: (-len(architectures_with(name)), name)))


def known_architecture(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: when torchvision has no classification builder of that name; the message offers the nearest names.
    """
    if name in architectures():
        return name
    hint = did_you_mean(name, architectures())
    raise ValueError(f"no torchvision classifier is called {name!r}{hint}: `snowmelt backbones` lists them")


def known_weights(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: when no architecture has weights of that name; the message lists the names.
    """
    allowed = (DEFAULT, FROM_SCRATCH, *weights_names())
    if name in allowed:
        return name
    raise ValueError(f"no weights are called {name!r}{did_you_mean(name, allowed)}: the names are {', '.join(allowed)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean A or B?)', or nothing when no known word is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=3, cutoff=0.6)
    return " (did you mean " + " or ".join(by_folded[match] for match in near) + "?)" if near else ""
