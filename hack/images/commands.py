"""Running the tools that images are made with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class ImagesError(Exception):
    """An image cannot be made; the message says why, and which log has the rest."""


def run(*command: str | Path, log: Path | None = None) -> str:
    """Run a command to its end and return what it printed; its messages go to `log` where one is given.

    Raises:
        ImagesError: it failed; with its last words.
    """
    # chroot: where the machine is itself a container, buildah's own runtimes find no control groups to use.
    environment = {"BUILDAH_ISOLATION": "chroot"} | os.environ
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        rest = f" (all of it: {log})" if log is not None else ""
        raise ImagesError(f"{' '.join(words[:3])} failed with exit status {done.returncode}{rest}:\n{said}")
    return done.stdout
