"""What a worker may fill with activations, and how fast its local disk is."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import torch

from snowmelt_trainer.accelerator import has_room
from snowmelt_trainer.training.activations.payoff import Transfer

DIRECTORY_ENV = "SNOWMELT_CACHE_DIR"
"""Where files of cached activations, and what waits to be written, go; the system's folder for temporary files where
it is not set."""
MEMORY_SHARE = 0.5
DISK_SHARE = 0.8
"""Of what is free, how much may be filled."""
DEVICE_SHARE = 0.25
"""The same of an accelerator's memory, which training needs for itself."""
UNLIMITED = 2**62
PROBE_BYTES = 16 * 2**20
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Bytes of memory that this process may still take: the machine's, or the container's where that is less. 0 where
    neither is known."""
    free = [size for size in (_machine_memory(meminfo), _container_memory(cgroup)) if size is not None]
    return max(0, min(free, default=0))


def memory_for(size: int, device: torch.device) -> torch.device:
    """Where a worker on `device` keeps `size` bytes in memory: on the accelerator itself where they take little of what
    is free there, else on the host."""
    return device if has_room(device, size, DEVICE_SHARE) else torch.device("cpu")


def local_disk() -> Path:
    """The folder on this machine's own disk for what nobody else reads.

    Raises:
        OSError: there is none.
    """
    return Path(os.environ.get(DIRECTORY_ENV) or tempfile.gettempdir())


def free_disk(directory: Path) -> int:
    """Bytes that may still be written below `directory`, which exists."""
    return shutil.disk_usage(directory).free


def _machine_memory(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", maxsplit=1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _container_memory(cgroup: Path) -> int | None:
    """What is left below the limit; pages of files, which the kernel gives up when asked, do not count as used."""
    for limit, usage, inactive in (
        (cgroup / "memory.max", cgroup / "memory.current", "inactive_file"),
        (cgroup / "memory/memory.limit_in_bytes", cgroup / "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, used = int(limit.read_text()), int(usage.read_text())  # "max" is no number: no limit
            rows = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
            return most - used + int(rows.get(inactive, "0"))
        except (OSError, ValueError):
            continue
    return None


def cache_directory(uid: str) -> Path:
    """A folder of this user's own for the run's files; it may hold what an earlier attempt left there.

    Raises:
        OSError: when it cannot be made, or belongs to somebody else (a shared folder for temporary files is open to
            all).
    """
    directory = local_disk() / f"snowmelt-activations-{uid}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not a private folder of this user: remove it, or set {DIRECTORY_ENV}")
    return directory


def sweep(directory: Path, keys: Collection[str]) -> None:
    """Removes the files of other keys than these: what an attempt that was cut off in an earlier stage left there."""
    for path in directory.iterdir():
        if path.stem not in keys:
            path.unlink(missing_ok=True)


def disk_transfer(directory: Path) -> Transfer:
    """Seconds a byte to write to the disk, and to read what is no longer in memory: a few MiB are written for it.

    Raises:
        OSError: when the disk is full or cannot be written to.
    """
    data = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        started = time.perf_counter()
        for _ in range(PROBE_BYTES // len(data)):
            file.write(data)
        os.fsync(file.fileno())
        written = time.perf_counter()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        while file.read(2**20):
            pass
        done = time.perf_counter()
    return Transfer((written - started) / PROBE_BYTES, (done - written) / PROBE_BYTES)
