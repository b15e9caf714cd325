"""kubectl as one user of one API server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


class ControlPlaneError(Exception):
    """A part does not come up, or kubectl refused; the message says which and holds its last words."""


class Kubectl:
    """Calls `binary` with `kubeconfig`."""

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self._command = (str(binary), "--kubeconfig", str(kubeconfig))

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            ControlPlaneError: kubectl failed; the message is what it wrote to stderr.
        """
        command = [*self._command, *(str(word) for word in arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ControlPlaneError(done.stderr.strip() or f"kubectl ended with exit status {done.returncode}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """What `kubectl get ARGUMENTS -o json` says, parsed."""
        return json.loads(self("get", *arguments, "-o", "json"))
