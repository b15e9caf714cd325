"""What the docstring under each member of an enum says."""

from __future__ import annotations

import ast
import inspect
import textwrap
from enum import Enum


def member_docs(enum: type[Enum]) -> dict[str, str]:
    """The docstring of each member that has one, by value."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        name = _assigned_name(statement)
        text = _string(following)
        if name is not None and text is not None:
            docs[str(enum[name].value)] = " ".join(text.split())
    return docs


def _assigned_name(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


def _string(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return None
