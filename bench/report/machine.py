"""What the page says of the machine and of versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ALWAYS = ("torch", "torchvision", "numpy")


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


def revision(checkout: Path = Path(__file__).parents[2]) -> str:
    """The commit of a checkout, marked where files differ from it, those of docs/ apart, which a benchmark writes;
    empty outside of a repository."""
    if shutil.which("git") is None:
        return ""
    commit = _git(checkout, "rev-parse", "--short", "HEAD")
    changed = commit and _git(checkout, "diff", "--name-only", "HEAD", "--", ".", ":(exclude)docs")
    return f"{commit}-dirty" if changed else commit


def _git(checkout: Path, *arguments: str) -> str:
    """What it says; nothing where it fails."""
    ended = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False)
    return "" if ended.returncode else ended.stdout.strip()


@dataclass(frozen=True)
class Where:
    """What every result says of where it was measured."""

    machine: str
    revision: str
    """Of this repository."""


def here(accelerator: str = "") -> Where:
    """This machine, and this checkout."""
    return Where(machine(accelerator), revision())


def installed(distributions: Sequence[str] = (), *, under: Sequence[str] = ALWAYS) -> dict[str, str]:
    """The versions of Python, of the libraries under all contenders and of these, where they are installed."""
    found = {"Python": platform.python_version()}
    for name in (*under, *distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def versions(known: Mapping[str, str] | None = None) -> str:
    """These, else what is installed here, in one line."""
    return ", ".join(f"{name} {text}" for name, text in sorted((known or installed()).items()))
