"""kubectl as one user of one API server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


class ControlPlaneError(Exception):
    """A part does not come up, or kubectl refused; the message says which and holds its last words."""


class Kubectl:
    """Calls `binary` with `kubeconfig`."""

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self.binary = binary
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

    def install_crds(self, *files: Path) -> None:
        """Apply CRDs (server-side: KubeRay's are too large for an annotation) and wait until they are served."""
        names = [word for file in files for word in ("-f", str(file))]
        self("apply", "--server-side", "--force-conflicts", *names)
        for file in files:
            # Not `kubectl wait`, which fails on a CRD so new that it has no conditions yet.
            eventually(partial(self._is_established, file), f"{file.name} is not served")

    def _is_established(self, file: Path) -> bool:
        conditions = self.get("-f", str(file)).get("status", {}).get("conditions") or []
        return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)


def eventually(holds: Callable[[], bool], complaint: str, within_s: float = 30.0, every_s: float = 0.1) -> None:
    """Return as soon as `holds()`, which is asked every `every_s` seconds.

    Raises:
        ControlPlaneError: `complaint`, when it does not hold within `within_s` seconds.
    """
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            raise ControlPlaneError(f"{complaint} (waited {within_s:.0f} s)")
        time.sleep(every_s)
