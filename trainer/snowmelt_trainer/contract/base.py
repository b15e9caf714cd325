"""The base of every type that crosses a process boundary, and the rules that bind several fields together.

A rule is written once, in two languages: a Python predicate (the operator, the trainer and the command line use it) and
a CEL expression (the API server uses it at `kubectl apply`). Both refuse the same documents with the same sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """A constraint over the fields of one object.

    `field` is the path, relative to that object, of the field to change; `holds` and `cel` say the same thing, where
    `cel` sees the object as `self`; `message` says what is wrong and what to do about it.
    """

    field: str
    holds: Callable[[Any], bool]
    cel: str
    message: str


@dataclass(frozen=True)
class Transition:
    """A constraint over the change of an object, which the API server alone checks: `cel` sees `self` and `oldSelf`."""

    field: str
    cel: str
    message: str


def hold(rules: Sequence[Rule], value: T) -> T:
    """The value itself.

    Raises:
        PydanticCustomError: of type "rules" when rules are broken; its context's `violations` are (field, message).
    """
    broken = [rule for rule in rules if not rule.holds(value)]
    if broken:
        text = "; ".join(rule.message for rule in broken)
        violations = [(rule.field, rule.message) for rule in broken]
        raise PydanticCustomError("rules", "{text}", {"text": text, "violations": violations})
    return value


def not_supported_yet(path: str, *, field: str, holds: Callable[[Any], bool], cel: str) -> Rule:
    """A field of the contract on which no code acts yet: refused in plain words, never ignored."""
    return Rule(field=field, holds=holds, cel=cel, message=f"not supported yet: {path}; leave it at its default")


class Contract(BaseModel):
    """Frozen, closed (unknown fields are refused), camelCase outside and snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Transition, ...]] = ()

    @model_validator(mode="after")
    def _every_rule_holds(self) -> Self:
        return hold(type(self).rules, self)

    def to_json_dict(self) -> dict[str, Any]:
        """The document as it travels: camelCase keys, no absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
