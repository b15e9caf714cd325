"""URIs of data, weights and output.

`file:///abs/path` names a path inside the container (or on the laptop); `pvc://CLAIM/path` a path on a
PersistentVolumeClaim of the job's namespace, which is mounted under the volumes root as `<root>/CLAIM/path`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from snowmelt_trainer.contract.text import Form

SUPPORTED_SCHEMES = ("file", "pvc")
PLANNED_SCHEMES = ("s3", "gs", "az", "http", "https")

Uri = Annotated[
    str,
    StringConstraints(max_length=1024),
    Form(
        r"^(file:///|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/|$)|(s3|gs|az|https?)://[^/]).*$",
        "a location: write file:///PATH or pvc://CLAIM/PATH",
    ),
]
"""Any location the contract knows; which of them a release acts on is said by `is_supported`."""
SUPPORTED_URI_CEL = (
    "(self.uri.startsWith('file://') || self.uri.startsWith('pvc://'))"
    " && !self.uri.split('/').exists(part, part == '..')"
)
"""`is_supported` for the field `uri`, in CEL."""


def is_supported(uri: str) -> bool:
    """Whether this release can read and write the location: its scheme is known and no part of its path is `..`."""
    return scheme_of(uri) in SUPPORTED_SCHEMES and ".." not in uri.split("/")


def scheme_of(uri: str) -> str:
    return uri.partition("://")[0]


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim that a pvc:// URI names, else None."""
    return uri.removeprefix("pvc://").split("/")[0] if uri.startswith("pvc://") else None


def to_path(uri: str, volumes_root: str) -> Path:
    """The path at which this machine sees a file:// or pvc:// URI.

    Raises:
        ValueError: for another scheme, or when the path tries to leave its volume by `..`.
    """
    if not is_supported(uri):
        raise ValueError(f"{uri}: only file:// and pvc:// locations without '..' can be opened")
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return Path(volumes_root) / uri.removeprefix("pvc://")
