"""Finding all that we started, and all that those started, by a mark in their environment. It reads Linux' /proc."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

GIVE_UP_AFTER_S = 10.0


def processes(name: str, value: str) -> list[int]:
    """Ids of the living processes of this user, this one apart, whose environment began with NAME=value."""
    mark = f"{name}={value}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if int(folder.name) != os.getpid() and _bears(folder, mark)
    ]


def kill(name: str, value: str) -> None:
    """SIGKILL every process that bears the mark until none is left, even if it left its session or lost its parent."""
    until = time.monotonic() + GIVE_UP_AFTER_S
    while (living := processes(name, value)) and time.monotonic() < until:
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _bears(folder: Path, mark: bytes) -> bool:
    try:
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
