"""The manifests of this folder, and what their first lines say about them.

`field` is the path that every refusal names; `says` is part of what `snowmelt validate` says, and `kubectl-says` of
what kubectl says. `refused-by` is the first that refuses: kubectl (no object can be made of it), apiserver, validate
(kubectl takes it, silently choosing a meaning), or change (two documents, of which the second changes what must stay).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

FOLDER = Path(__file__).parent
RefusedBy = Literal["kubectl", "apiserver", "validate", "change"]


@dataclass(frozen=True)
class Bad:
    """A manifest that must be refused."""

    file: Path
    field: str
    says: str
    refused_by: RefusedBy
    kubectl_says: str


def bad_manifests() -> list[Bad]:
    return [_read(file) for file in sorted((FOLDER / "bad").glob("*.yaml"))]


def good_manifests() -> list[Path]:
    return sorted((FOLDER / "good").glob("*.yaml"))


def _read(file: Path) -> Bad:
    header = dict(
        line.removeprefix("# ").split(": ", maxsplit=1)
        for line in file.read_text().splitlines()
        if line.startswith("# ")
    )
    refused_by = cast(RefusedBy, header["refused-by"])
    return Bad(file, header["field"], header["says"], refused_by, header.get("kubectl-says", header["field"]))
