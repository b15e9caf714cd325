"""Manifest: a CSV, JSON Lines or Parquet file with the columns uri, label and, optionally, split."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pyarrow import parquet as untyped_parquet
from pyarrow.lib import ArrowException

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.contract.uri import is_supported, to_path
from snowmelt_trainer.data.boundary import Boundary
from snowmelt_trainer.data.samples import Listing, shown
from snowmelt_trainer.errors import RunError

parquet: Any = untyped_parquet  # pyarrow ships no types

MAX_LINE = 64 * 1024
"""Longest line of a CSV or JSON Lines manifest, in characters."""


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, by split. Without a split column every row is in `train` and `has_splits` is false."""

    rows: dict[Split, Listing]
    has_splits: bool

    def rows_for(self, split: Split) -> Listing:
        """The rows that `split` is read from: its own where there is a split column, else all."""
        return self.rows[split if self.has_splits else Split.TRAIN]


@dataclass(frozen=True)
class _Row:
    where: str
    """File and line, for messages."""
    fields: dict[str, Any]


def read_manifest(path: Path, source: str, boundary: Boundary, volumes_root: str) -> Manifest:
    """Read the manifest; relative uris are taken from the folder it lies in.

    Raises:
        RunError: DataNotFound, or DataUnreadable with the file and line of the first row that cannot be used.
    """
    found: dict[Split, tuple[list[str], list[str]]] = {split: ([], []) for split in Split}
    has_splits = False
    try:
        for row in _READERS[path.suffix.lower()](path):
            split = _split(row)
            has_splits = has_splits or "split" in row.fields
            paths, labels = found[split]
            paths.append(_image_path(row, path.parent, boundary, volumes_root))
            labels.append(_label(row))
    except FileNotFoundError:
        raise RunError(Reason.DATA_NOT_FOUND, f"{source}: no such file: {shown(str(path))}") from None
    except OSError as error:
        raise RunError(Reason.DATA_UNREADABLE, f"{source}: cannot be read: {error.strerror or error}") from None
    except (csv.Error, ArrowException, UnicodeDecodeError) as error:
        raise RunError(Reason.DATA_UNREADABLE, f"{source}: is no {path.suffix.lower()[1:]} file: {error}") from None
    return Manifest({split: Listing(source, tuple(p), tuple(n)) for split, (p, n) in found.items()}, has_splits)


def is_manifest(path: Path) -> bool:
    """Whether the file's name says that it is a manifest."""
    return path.suffix.lower() in _READERS


def _image_path(row: _Row, folder: Path, boundary: Boundary, volumes_root: str) -> str:
    uri = row.fields.get("uri")
    if not isinstance(uri, str) or not uri:
        raise _problem(row, "uri is missing: give a path relative to the manifest, a file:// or a pvc:// URI")
    if "://" not in uri:
        path = str(folder / uri)
    elif is_supported(uri):
        path = str(to_path(uri, volumes_root))
    else:
        raise _problem(row, f"uri {shown(uri)!r}: only file:// and pvc:// locations without '..' can be read")
    boundary.check(path, where=row.where)
    return path


def _label(row: _Row) -> str:
    label = row.fields.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise _problem(row, "label is missing: give a name or a whole number")
    return str(label)


def _split(row: _Row) -> Split:
    split = row.fields.get("split") or Split.TRAIN
    if split not in Split.__members__.values():
        raise _problem(row, f"split {split!r} is not one of train, validation, test")
    return Split(split)


def _problem(row: _Row, what: str) -> RunError:
    return RunError(Reason.DATA_UNREADABLE, f"{row.where}: {what}")


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(_bounded_lines(file, path), strict=True)
        _require_columns(path, reader.fieldnames or ())
        for fields in reader:
            if None in fields:
                raise RunError(
                    Reason.DATA_UNREADABLE, f"{shown(str(path))}:{reader.line_num}: more values than columns"
                )
            yield _Row(f"{shown(str(path))}:{reader.line_num}", fields)


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(_bounded_lines(file, path), start=1):
            if not line.strip():
                continue
            where = f"{shown(str(path))}:{number}"
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RunError(Reason.DATA_UNREADABLE, f"{where}: is no JSON: {error}") from None
            if not isinstance(fields, dict):
                raise RunError(Reason.DATA_UNREADABLE, f"{where}: is no JSON object with uri and label")
            yield _Row(where, fields)


def _parquet_rows(path: Path) -> Iterator[_Row]:
    with path.open("rb") as file:
        table = parquet.ParquetFile(file)
        _require_columns(path, table.schema_arrow.names)
        columns = [name for name in ("uri", "label", "split") if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(batch_size=8192, columns=columns):
            for fields in batch.to_pylist():
                number += 1
                yield _Row(f"{shown(str(path))}: row {number}", fields)


def _bounded_lines(file: Any, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise RunError(
                Reason.DATA_UNREADABLE, f"{shown(str(path))}:{number}: the line is longer than {MAX_LINE} characters"
            )
        yield line


def _require_columns(path: Path, names: Any) -> None:
    missing = [name for name in ("uri", "label") if name not in names]
    if missing:
        raise RunError(
            Reason.DATA_UNREADABLE,
            f"{shown(str(path))}: has no column {' and '.join(missing)}; "
            f"its columns are {', '.join(map(str, names)) or 'none'}",
        )


_READERS = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".parquet": _parquet_rows}
