"""Writing to the output's storage: atomic, durable, and with errors for people."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write below `place` into a RunError: StorageFull or OutputUnwritable."""
    try:
        yield
    except OSError as error:
        where = error.filename or place
        if error.errno in _FULL:
            raise RunError(
                Reason.STORAGE_FULL, f"{where}: no space left: free some, or enlarge the volume of output.uri"
            ) from error
        raise RunError(
            Reason.OUTPUT_UNWRITABLE,
            f"{where}: cannot write: {error.strerror or error}: check output.uri and its permissions",
        ) from error


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to the disk; not atomic by itself."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that a reader, or a restart after a crash, finds either the old content or the new."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_file(beside, data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
