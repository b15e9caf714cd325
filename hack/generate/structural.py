"""A structural schema (KEP-1693) from a pydantic model: nothing is referred to, everything is described and bounded."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from hack.generate.enumdocs import member_docs
from snowmelt_trainer.contract.base import Contract, Rule, Transition

Schema = dict[str, Any]
VALIDATIONS = "x-kubernetes-validations"
INT_OR_STRING = "x-kubernetes-int-or-string"
PASSED_ON = (
    "type", "enum", "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip


class UnfitForCrdError(Exception):
    """A type says too little for a CustomResourceDefinition; the message names the field."""


def structural_schema(model: type[Contract], *, path: str, with_defaults: bool) -> Schema:
    """The OpenAPI v3 schema of one part of a custom resource, which lies at `path`.

    Raises:
        UnfitForCrdError: when a field has no description, or a string, list or map has no bound.
    """
    document = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    definitions = document.pop("$defs", {})
    return _object(document, definitions, path=path, with_defaults=with_defaults)


def validations(rules: Iterable[Rule | Transition], *, under: str = "") -> list[Schema]:
    """Rules as the API server takes them; `under` is the path of their fields' object from the one they stand at."""
    return [
        {"rule": rule.cel, "message": rule.message, "fieldPath": f"{under}.{rule.field}", "reason": "FieldValueInvalid"}
        for rule in rules
    ]


class _WithRules(GenerateJsonSchema):
    """Adds what JSON schema has no words for: our rules, and what the members of an enum mean."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        generated = super().model_schema(schema)
        model = schema["cls"]
        if issubclass(model, Contract) and (rules := validations((*model.rules, *model.transitions))):
            generated[VALIDATIONS] = rules
        return generated

    def enum_schema(self, schema: core_schema.EnumSchema) -> Schema:
        generated = super().enum_schema(schema)
        cls: type[Enum] = schema["cls"]
        generated.pop("description", None)
        generated["memberDocs"] = member_docs(cls)
        return generated


def _object(schema: Schema, definitions: Schema, *, path: str, with_defaults: bool) -> Schema:
    properties = {
        name: _node(field, definitions, path=f"{path}.{name}", with_defaults=with_defaults)
        for name, field in schema["properties"].items()
    }
    made = _passed_on(schema) | {"description": _text(schema, path), "properties": properties}
    return made | {key: schema[key] for key in ("required", VALIDATIONS) if schema.get(key)}


def _node(schema: Schema, definitions: Schema, *, path: str, with_defaults: bool) -> Schema:
    schema = _resolved(schema, definitions)
    if INT_OR_STRING in schema:
        return _int_or_string(schema, path)
    made = _passed_on(schema) | {"description": _text(schema, path)}
    if with_defaults and schema.get("default") is not None:
        # An object's default is empty: its fields then take their own.
        made["default"] = {} if schema["type"] == "object" else schema["default"]
    match schema["type"]:
        case "object" if "properties" in schema:
            return made | _object(schema, definitions, path=path, with_defaults=with_defaults)
        case "object":
            return made | {"additionalProperties": _values(schema, definitions, path=path)}
        case "array":
            _demand(schema, "maxItems", path)
            return made | {"items": _items(schema, definitions, path=path, with_defaults=with_defaults)}
        case "string" if "enum" not in schema and "format" not in schema:
            _demand(schema, "maxLength", path)
        case "integer":
            made["format"] = "int64"
    return made


def _values(schema: Schema, definitions: Schema, *, path: str) -> Schema:
    _demand(schema, "maxProperties", path)
    patterns = schema.get("patternProperties", {})
    value = schema.get("additionalProperties") or next(iter(patterns.values()))
    return _without_description(
        _node({"description": "-", **value}, definitions, path=f"{path}.*", with_defaults=False)
    )


def _items(schema: Schema, definitions: Schema, *, path: str, with_defaults: bool) -> Schema:
    described = _resolved(schema["items"], definitions)
    item = _node({"description": "-", **described}, definitions, path=f"{path}[]", with_defaults=with_defaults)
    return item if "properties" in item else _without_description(item)


def _without_description(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Follows `$ref`, and takes `X or null` for an optional X; what stands beside them has precedence."""
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].removeprefix("#/$defs/")] | beside, definitions)
    if "anyOf" in schema and INT_OR_STRING not in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return _resolved(only | beside, definitions)
    return schema


def _passed_on(schema: Schema) -> Schema:
    made = {key: schema[key] for key in PASSED_ON if key in schema}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in made:  # OpenAPI 3.0 has a flag where JSON schema has a number
            made |= {bound: made[exclusive], exclusive: True}
    return made


def _int_or_string(schema: Schema, path: str) -> Schema:
    _demand(schema, "maxLength", path)
    return {INT_OR_STRING: True} | _passed_on(schema) | {"description": _text(schema, path)}


def _text(schema: Schema, path: str) -> str:
    text = " ".join(schema.get("description", "").split())
    if not text:
        raise UnfitForCrdError(f"{path} has no description: write a docstring under the field")
    docs = [f"{value}: {meaning}" for value, meaning in schema.get("memberDocs", {}).items()]
    return "\n".join([text, *docs])


def _demand(schema: Schema, bound: str, path: str) -> None:
    if bound not in schema:
        raise UnfitForCrdError(f"{path} has no {bound}: bound its type, or CEL rules get too dear for the API server")
