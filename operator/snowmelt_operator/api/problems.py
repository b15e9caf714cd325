"""What is wrong with a manifest, for people: the field, what is wrong with it, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_trainer.contract.catalog import did_you_mean

Step = str | int
MAX_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    path: tuple[Step, ...]
    """Where, from the document's root; an unknown or missing field is part of it."""
    text: str
    """What is wrong there, and what to do."""

    @property
    def field(self) -> str:
        """The path as people write it: `spec.unfreezing.stages[0].unfreeze`."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).lstrip(".")

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.path else self.text


def problems_of(error: ValidationError) -> list[Problem]:
    """Every problem that `FineTuneJob.parse` found, one for each field and cause."""
    return [problem for details in error.errors(include_url=False) for problem in _problems(details)]


def _problems(details: ErrorDetails) -> list[Problem]:
    path = details["loc"]
    if details["type"] == "rules":
        violations: list[tuple[str, str]] = details["ctx"]["violations"]
        return [Problem((*path, *field.split(".")), message) for field, message in violations]
    if details["type"] == "extra_forbidden":
        return [Problem(path, _no_such_field(path))]
    if details["type"] == "missing":
        return [Problem(path, _required(path))]
    if details["type"] == "model_type":
        return [Problem(path, _no_object(path, details["input"]))]
    worded = _WORDS.get(details["type"])
    if worded is not None:
        return [Problem(path, worded(details["input"], details.get("ctx", {})))]
    return [Problem(path, details["msg"].removeprefix("Value error, "))]


def _no_such_field(path: tuple[Step, ...]) -> str:
    siblings = _fields(path[:-1])
    hint = did_you_mean(str(path[-1]), siblings)
    return f"there is no such field{hint}: " + (
        "correct it" if hint else f"remove it; there are {', '.join(sorted(siblings))}"
    )


def _required(path: tuple[Step, ...]) -> str:
    field = _fields(path[:-1]).get(str(path[-1]))
    described = " ".join(field.description.split()) if field is not None and field.description else "set it"
    return f"this field is required: {described}"


def _no_object(path: tuple[Step, ...], value: Any) -> str:
    fields = _fields(path)
    text = f"must be an object with fields ({', '.join(sorted(fields))}), not {_shown(value)}"
    meant = next((name for name, field in fields.items() if _is_choice(field.annotation, value)), None)
    return text if meant is None else f"{text}: write {{{meant}: {value}}}"


def _is_choice(annotation: Any, value: Any) -> bool:
    """Whether the value is one of an enumeration's."""
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return is_enum and value in [choice.value for choice in annotation]


def _fields(path: tuple[Step, ...]) -> dict[str, FieldInfo]:
    """The fields of the object at `path`, by the names they have in YAML; empty where there is no such object."""
    model: type[BaseModel] | None = FineTuneJob
    for step in path:
        if model is None:
            return {}
        if isinstance(step, str):
            field = _by_alias(model).get(step)
            model = _model_in(field.annotation) if field is not None else None
    return _by_alias(model) if model is not None else {}


def _by_alias(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as `tuple[CustomStage, ...]` or `Target | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _not_one_of(value: Any, context: Mapping[str, Any]) -> str:
    names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    if len(names) == 1:
        return f"must be {names[0]}, not {_shown(value)}"
    return f"{_shown(value)} is not one of {', '.join(names)}{did_you_mean(str(value), names)}"


def _must_be(what: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda value, _: f"must be {what}, not {_shown(value)}"


def _bound(words: str, key: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda value, context: f"must be {words} {context[key]:g}, not {_shown(value)}"


def _length(words: str, key: str, unit: str) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda _, context: f"must have {words} {context[key]} {unit}"


_WORDS: dict[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "enum": _not_one_of,
    "literal_error": _not_one_of,
    "int_type": _must_be("an integer"),
    "int_from_float": _must_be("an integer"),
    "float_type": _must_be("a number"),
    "finite_number": _must_be("a finite number"),
    "bool_type": _must_be("true or false"),
    "string_type": _must_be("text (put it in quotes)"),
    "list_type": _must_be("a list"),
    "tuple_type": _must_be("a list"),
    "dict_type": _must_be("a map"),
    "greater_than": _bound("above", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("below", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_long": _length("at most", "max_length", "characters"),
    "string_too_short": _length("at least", "min_length", "characters"),
    "too_long": _length("at most", "max_length", "entries"),
    "too_short": _length("at least", "min_length", "of them"),
}
