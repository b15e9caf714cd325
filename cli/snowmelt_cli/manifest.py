"""Manifests as people write them: YAML, with the line that every value came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from snowmelt_operator.api.problems import Problem, Step

MAX_BYTES = 1024 * 1024
"""Largest manifest; etcd stores no larger object."""
MAX_VALUES = 100_000
"""Most values in one document once its aliases are written out: a few lines of YAML can stand for billions."""
CORE = "tag:yaml.org,2002:"
MERGE = f"{CORE}merge"


@dataclass(frozen=True)
class Finding:
    """A problem, and where in which file."""

    file: Path
    line: int | None
    """Counted from 1; None where it concerns the file as a whole."""
    problem: Problem

    def __str__(self) -> str:
        where = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.problem}"


@dataclass
class Document:
    """One YAML document of a file."""

    file: Path
    value: Any
    """What JSON can say: dict, list, str, int, float, bool or None."""
    lines: dict[tuple[Step, ...], int] = field(default_factory=dict)
    """The line of each key and list entry, counted from 1."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong with it as YAML."""

    def found(self, problem: Problem) -> Finding:
        """The problem, at the nearest line that is known."""
        ancestors = (problem.path[:length] for length in range(len(problem.path), -1, -1))
        return Finding(self.file, next((self.lines[path] for path in ancestors if path in self.lines), 1), problem)


class UnreadableError(Exception):
    """The file, or what is left of it, is no YAML."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def read_documents(file: Path) -> Iterator[Document]:
    """The documents of a file that are not empty.

    Raises:
        UnreadableError: where the file cannot be read, is too large, or is not YAML from some line on.
    """
    text = _text(file)
    try:
        for node in YAML(typ="safe", pure=True).compose_all(text):
            if node is not None and node.tag != f"{CORE}null":
                yield _Reading(file).document(node)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableError(Finding(file, line, Problem((), f"this is not YAML: {reason}"))) from error
    except YAMLError as error:
        raise UnreadableError(Finding(file, None, Problem((), f"this is not YAML: {error}"))) from error


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UnreadableError(
                Finding(file, None, Problem((), f"larger than {MAX_BYTES:,} bytes: is this a manifest?"))
            )
        return content.decode()
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    except UnicodeDecodeError as error:
        problem = f"this is not text in UTF-8: byte {error.start} is {content[error.start]:#04x}"
    raise UnreadableError(Finding(file, None, Problem((), problem)))


class _Reading:
    """One walk over the nodes of a document."""

    def __init__(self, file: Path) -> None:
        self._document = Document(file, None)
        self._scalars = YAML(typ="safe", pure=True).constructor
        self._values = 0

    def document(self, node: Node) -> Document:
        try:
            self._document.lines[()] = node.start_mark.line + 1
            self._document.value = self._value(node, ())
        except (_TooManyError, RecursionError):
            self._document.value = None
            self._find((), f"more than {MAX_VALUES:,} values once aliases are written out: write it without them")
        return self._document

    def _find(self, path: tuple[Step, ...], text: str) -> None:
        self._document.findings.append(self._document.found(Problem(path, text)))

    def _value(self, node: Node, path: tuple[Step, ...]) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooManyError
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self._entry(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _entry(self, node: Node, path: tuple[Step, ...]) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self._value(node, path)

    def _mapping(self, node: MappingNode, path: tuple[Step, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                merged |= self._merged(value_node, path)
                continue
            key, line = _whole(str(key_node.value)), key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._find(path, f"line {line}: the name of a field cannot be a list or a map")
            elif key in made:
                first = self._document.lines[(*path, key)]
                self._document.lines[(*path, key)] = line
                self._find((*path, key), f"given twice, first on line {first}: remove one of them")
            else:
                self._document.lines[(*path, key)] = line
                made[key] = self._value(value_node, (*path, key))
        return merged | made

    def _merged(self, node: Node, path: tuple[Step, ...]) -> dict[str, Any]:
        """What `<<: *alias` brings: what stands beside it, and what is named earlier, has precedence."""
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            made: dict[str, Any] = {}
            for item in reversed(node.value):
                made |= self._merged(item, path)
            return made
        self._find(path, "<< takes an alias of a map")
        return {}

    def _scalar(self, node: Node, path: tuple[Step, ...]) -> Any:
        match str(node.tag).removeprefix(CORE):
            case "null" | "bool" | "int" | "float":
                return self._scalars.construct_object(node)
            case "str" | "timestamp":  # JSON has no times: to the API server they are text
                return _whole(node.value)
            case tag:
                self._find(path, f"the YAML tag {tag} means nothing here: remove it")
                return None


def _whole(text: str) -> str:
    """Characters that JSON writes as two escapes, put together; a half without the other becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _TooManyError(Exception):
    """The document is larger than it looks."""
