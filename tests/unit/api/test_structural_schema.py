"""The schema of the CRD, as KEP-1693 wants it and as people can read it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from hack.generate.crd import crd
from hack.generate.structural import UnfitForCrdError, structural_schema
from snowmelt_trainer.contract.base import Contract

Schema = dict[str, Any]


def schema() -> Schema:
    root: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema within the schema, with its path."""
    yield path.lstrip("."), schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}.*")


FIELDS = [(path, node) for path, node in nodes(schema()) if path.startswith(("spec", "status"))]


def test_nothing_is_referred_to_or_left_open() -> None:
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "nullable", "patternProperties", "propertyNames"}
    assert [(path, forbidden & node.keys()) for path, node in FIELDS if forbidden & node.keys()] == []


def test_every_field_is_described() -> None:
    assert [path for path, node in FIELDS if not path.endswith((".*", "[]")) and not node.get("description")] == []


def test_every_string_list_and_map_is_bounded() -> None:
    unbounded = [
        path
        for path, node in FIELDS
        if (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
        or (node.get("type") == "string" and not {"maxLength", "enum", "format"} & node.keys())
    ]
    assert unbounded == []


def test_the_meaning_of_each_choice_is_part_of_the_description() -> None:
    description = dict(FIELDS)["spec.unfreezing.strategy"]["description"]
    assert "HeadOnly: Train the new classifier head alone." in description


def test_an_object_left_out_takes_the_defaults_of_its_fields() -> None:
    by_path = dict(FIELDS)
    assert by_path["spec.optimization"]["default"] == {}
    assert by_path["spec.optimization.regularization"]["default"] == {}
    assert by_path["spec.optimization.regularization.dropout"]["default"] == 0.0


def test_nothing_in_status_has_a_default() -> None:
    assert [path for path, node in FIELDS if path.startswith("status") and "default" in node] == []


def test_every_rule_names_a_field_that_exists() -> None:
    for path, node in nodes(schema()):
        for rule in node.get("x-kubernetes-validations", []):
            target = node
            for step in rule["fieldPath"].lstrip(".").split("."):
                assert step in target["properties"], f"{path}: {rule}"
                target = target["properties"][step]


def test_conditions_merge_by_type() -> None:
    conditions = dict(FIELDS)["status.conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


class _Colour(StrEnum):
    RED = "Red"
    """Like a fire engine."""


class _Undescribed(Contract):
    """Has a field that nobody described."""

    number: int


class _Unbounded(Contract):
    """Has a string of any length."""

    text: str
    """Some text."""


class _UnboundedList(Contract):
    """Has a list of any length."""

    numbers: tuple[int, ...] = ()
    """Some numbers."""


class _UnboundedMap(Contract):
    """Has a map of any size."""

    numbers: dict[str, int] = {}
    """Some numbers."""


class _Whole(Contract):
    """Has one of each."""

    above: Annotated[float, Field(gt=0.5)] = 1.0
    """A number."""
    colour: _Colour | None = None
    """A colour."""


def test_a_field_without_a_docstring_is_refused() -> None:
    with pytest.raises(UnfitForCrdError, match=r"spec\.number has no description"):
        structural_schema(_Undescribed, path="spec", with_defaults=True)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (_Unbounded, r"spec\.text has no maxLength"),
        (_UnboundedList, r"spec\.numbers has no maxItems"),
        (_UnboundedMap, r"spec\.numbers has no maxProperties"),
    ],
)
def test_a_type_without_a_bound_is_refused(model: type[Contract], complaint: str) -> None:
    with pytest.raises(UnfitForCrdError, match=complaint):
        structural_schema(model, path="spec", with_defaults=True)


def test_exclusive_bounds_and_optional_enums_take_their_openapi_form() -> None:
    properties = structural_schema(_Whole, path="spec", with_defaults=True)["properties"]
    number = {"type": "number", "minimum": 0.5, "exclusiveMinimum": True, "description": "A number.", "default": 1.0}
    assert properties["above"] == number
    described = "A colour.\nRed: Like a fire engine."
    assert properties["colour"] == {"type": "string", "enum": ["Red"], "description": described}


def test_the_names_of_fields_are_what_users_have_written() -> None:
    """v1alpha1 may gain fields. One that vanishes, or is renamed, breaks manifests."""
    published = (Path(__file__).parent / "published_fields.txt").read_text().split()
    fields = {path for path, _ in FIELDS}
    assert [path for path in published if path not in fields] == [], "vanished"
    assert sorted(fields - set(published)) == [], "new: add them to published_fields.txt"
