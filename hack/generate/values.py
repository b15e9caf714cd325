"""The chart's values.yaml, read with its comments: what each value is for, and which values it may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

ANNOTATION = "@schema "
"""Begins a comment line that adds, as YAML in flow style, to the JSON schema of the value."""
Schema = dict[str, Any]
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


@dataclass(frozen=True)
class Value:
    """One key. What has `children` is a group of values; a mapping with an annotation is a value of its own."""

    path: tuple[str, ...]
    description: str
    default: Any
    annotation: Mapping[str, Any]
    children: tuple[Value, ...]

    def schema(self) -> Schema:
        """The JSON schema of this value: of the type of its default, and a group takes no keys but its own."""
        described = {"description": self.description}
        if self.children:
            return described | group_schema(self.children)
        # bool comes before int, which it is one of.
        type_ = next(name for python_type, name in _TYPES if isinstance(self.default, python_type))
        return described | {"type": type_} | dict(self.annotation)

    def walk(self) -> Iterator[Value]:
        """This value and all below it, in the order of the file."""
        yield self
        for child in self.children:
            yield from child.walk()


def group_schema(values: tuple[Value, ...]) -> Schema:
    """The JSON schema of a mapping with these keys and no others."""
    properties = {value.path[-1]: value.schema() for value in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def read_values(text: str) -> tuple[Value, ...]:
    """The values at the top of a values.yaml.

    Raises:
        ValueError: a key has no comment above it, or a default from which no type follows.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return tuple(_read(root, text.splitlines(), path=()))


def _read(mapping: yaml.MappingNode, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, node in mapping.value:
        here = (*path, key.value)
        comment = _comment_above(lines, key.start_mark.line)
        description = " ".join(line for line in comment if not line.startswith(ANNOTATION))
        if not description:
            raise ValueError(f"values.yaml: {'.'.join(here)} needs a comment that says what it is for")
        annotation: Schema = {}
        for line in comment:
            if line.startswith(ANNOTATION):
                annotation |= yaml.safe_load(line.removeprefix(ANNOTATION))
        default = _construct(node)
        if default is None or isinstance(default, float):
            raise ValueError(f"values.yaml: {'.'.join(here)}: no type follows from the default {default}")
        is_group = isinstance(node, yaml.MappingNode) and bool(node.value) and not annotation
        children = tuple(_read(node, lines, here)) if is_group else ()
        yield Value(here, description, default, annotation, children)


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _comment_above(lines: list[str], line: int) -> list[str]:
    """The comment right above a line, without its marks."""
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return comment
