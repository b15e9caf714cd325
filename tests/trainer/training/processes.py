"""The processes of a local Ray, found by what the kernel says of them."""

from __future__ import annotations

import os
from pathlib import Path


def train_workers() -> list[int]:
    """The processes of Ray Train's workers that this process's Ray has started, oldest first."""
    return sorted(pid for pid in _processes() if "RayTrainWorker" in _title(pid) and os.getpid() in _ancestors(pid))


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _title(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.add(pid)
    return found
