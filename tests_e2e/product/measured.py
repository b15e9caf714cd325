"""What the tests measured on the way, for the table in docs/e2e.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """Adds one line of JSON a figure to a file: the test, what was measured, seconds."""

    test: str
    file: Path

    def __call__(self, what: str, seconds: float) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps({"test": self.test, "what": what, "seconds": round(seconds, 1)}) + "\n")
