"""What the demo's job reads: the volumes that its pvc:// locations name, as folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


class InputsError(Exception):
    """The demo's data cannot be written; the message is the tool's own."""


def fill_volumes(volumes: Path) -> None:
    """Write scikit-learn's digits to `volumes`/digits and the committed weights to `volumes`/backbones."""
    command = [sys.executable, "-m", "hack.data.digits", str(volumes / "digits")]
    written = subprocess.run(command, capture_output=True, text=True, check=False)
    if written.returncode != 0:
        raise InputsError(f"the digits cannot be written: {written.stderr.strip()}")
    backbones = volumes / "backbones"
    backbones.mkdir(parents=True, exist_ok=True)
    for weights in sorted((EXAMPLES / "backbones").glob("*.safetensors")):
        shutil.copy(weights, backbones)
