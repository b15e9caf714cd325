"""Writing to the output's storage: atomic, durable, and with errors for people."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.errors import RunError

Content = bytes | Callable[[BinaryIO], object]
"""What a file is to hold, or who writes it."""
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


def write_file(path: Path, content: Content) -> str:
    """Writes a file, flushes it to the disk, and returns its SHA-256 in hex; not atomic by itself."""
    with path.open("wb") as raw:
        file = _Hashed(raw)
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(cast(BinaryIO, file))
        if file.error is not None:
            raise file.error
        raw.flush()
        os.fsync(raw.fileno())
        return file.digest.hexdigest()


class _Hashed:
    """As much of a file as torch.save needs, which makes of an error in `write` one that does not say what was wrong:
    so it is kept here."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._raw.write(data)
            except OSError as error:
                self.error = error
            self.digest.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """`write_file` does."""


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
