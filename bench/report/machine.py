"""What the page says of the machine and of versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALWAYS = ("torch", "torchvision", "numpy")
NOBODY: Mapping[str, str] = {}


def machine(accelerator: str = "") -> str:
    """The accelerator, where one is named; processor, cores, memory and system."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    special = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    has = f" ({', '.join(special)})" if special else ""
    name = names[0] if names else platform.machine()
    first = f"{accelerator}, " if accelerator else ""
    return f"{first}{name}{has}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def versions(known: Mapping[str, str] = NOBODY) -> str:
    """Python, the libraries under everyone, and whatever the fits said of theirs."""
    found = dict(known)
    for name in ALWAYS:
        try:
            found.setdefault(name, version(name))
        except PackageNotFoundError:
            continue
    said = [f"{name} {text}" for name, text in sorted(found.items())]
    return ", ".join([f"Python {platform.python_version()}", *said])
