"""The pinned helm, as one user of one API server, or of none for what only renders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts/snowmelt"
Document = dict[str, Any]


class HelmError(Exception):
    """helm refused; the message is what it wrote to stderr."""


class Helm:
    """Calls `binary`; its cache and its settings lie in `home`, so that nobody's own helm has a part in it."""

    def __init__(self, binary: Path, home: Path, kubeconfig: Path | None = None) -> None:
        self._binary = binary
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBECONFIG"))}
        self._environment = own | folders | {"KUBECONFIG": str(kubeconfig or os.devnull)}

    def __call__(self, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """Run helm and return what it printed; `values` are those of a values file.

        Raises:
            HelmError
        """
        command = [str(self._binary), *(str(word) for word in arguments)]
        if values is not None:
            command += ["--values", "-"]
        done = subprocess.run(
            command,
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
        )
        if done.returncode != 0:
            raise HelmError(done.stderr.strip() or f"helm ended with exit status {done.returncode}")
        return done.stdout

    def template(
        self, release: str, *, namespace: str, values: Mapping[str, Any] | None = None, chart: Path = CHART
    ) -> list[Document]:
        """The objects of the chart, hooks included, as `helm install` would send them.

        Raises:
            HelmError
        """
        text = self("template", release, chart, "--namespace", namespace, values=values or {})
        return [document for document in yaml.safe_load_all(text) if document is not None]
