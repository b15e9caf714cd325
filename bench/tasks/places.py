"""Where the benchmark keeps what it made: outside of the checkout, by version."""

from __future__ import annotations

import os
from pathlib import Path

VERSION = "v1"
"""Of everything that decides data and weights; raise it with any change of either."""


def cache_root() -> Path:
    """The folder for data and weights."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "snowmelt" / "bench" / VERSION
