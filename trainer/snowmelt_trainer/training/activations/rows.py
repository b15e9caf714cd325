"""Rows of activations by sample id: in memory (`data.rows.MemoryRows`) or in a file on the local disk."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snowmelt_trainer.data.batches import Ids
from snowmelt_trainer.data.rows import Flags

_FILLED = 1 << 32
"""Set in the mark of a row that was written; below it is the CRC-32 of its bytes."""


class Rows(Protocol):
    """The rows of one view."""

    row_bytes: int

    def has(self, ids: Ids) -> Flags:
        """Which of these samples' rows are there."""

    def put(self, ids: Ids, values: Tensor) -> None:
        """Keeps `values`, (len(ids), …) of the rows' shape and type.

        Raises:
            OSError: when the disk is full.
        """

    def take(self, ids: Ids) -> Tensor:
        """A copy of these samples' rows, which must be there, in the memory that they lie in."""

    def close(self) -> None:
        """Lets go of memory and removes files."""


class FileRows:
    """The rows of all samples, in one file that the workers of a node share; each writes those it owns.

    The file is sparse: rows that other nodes own take no space. Beside it lies a mark for each row, its checksum, so
    rows that an earlier attempt wrote are found again, and half-written ones are not taken for whole.
    """

    def __init__(self, directory: Path, key: str, like: Tensor, *, samples: int) -> None:
        """Raises:
        OSError: when the files cannot be made.
        """
        self._shape, self._dtype = like.shape[1:], like.dtype
        self.row_bytes = like[:1].numel() * like.element_size()
        self._path, self._marks_path = directory / f"{key}.rows", directory / f"{key}.marks"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(self._file, max(1, samples * self.row_bytes))
            self._marks = _mapped_marks(self._marks_path, samples)
            self._map_rows(samples)
        except OSError:
            os.close(self._file)
            raise
        self._checked: Flags = np.zeros(samples, dtype=np.bool_)

    def _map_rows(self, samples: int) -> None:
        elements = samples * self.row_bytes // self._dtype.itemsize
        flat = torch.from_file(str(self._path), shared=True, size=elements, dtype=self._dtype)
        self._values = flat.view(samples, *self._shape)

    def has(self, ids: Ids) -> Flags:
        marked: Flags = self._marks[ids] != 0
        for i in ids[marked & ~self._checked[ids]]:  # of an earlier attempt, or of another worker
            self._checked[i] = int(self._marks[i]) == _mark(self._values[i])
        found: Flags = self._checked[ids]
        return found

    def put(self, ids: Ids, values: Tensor) -> None:
        rows = values.detach().cpu().contiguous()
        raw = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
        for i, data in zip(ids.tolist(), raw, strict=True):
            _write_all(self._file, data, i * self.row_bytes)
        self._marks[ids] = [_mark(row) for row in rows]  # after the rows, so a mark never stands for a missing one
        self._checked[ids] = True

    def take(self, ids: Ids) -> Tensor:
        return self._values.index_select(0, torch.from_numpy(ids))

    def close(self) -> None:
        os.close(self._file)
        self._values = self._values.new_empty(0)
        for path in (self._path, self._marks_path):
            path.unlink(missing_ok=True)


def _write_all(file: int, data: npt.NDArray[np.uint8], offset: int) -> None:
    """Through the file and not through the mapping: on a full disk this raises, where the mapping would end the
    process."""
    left = memoryview(data.tobytes())
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _mapped_marks(path: Path, samples: int) -> npt.NDArray[np.uint64]:
    """Zeros where nobody has written yet; their space is taken at once."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, max(1, samples) * 8)
    finally:
        os.close(file)
    return np.memmap(path, dtype=np.uint64, mode="r+", shape=(max(1, samples),))


def _mark(row: Tensor) -> int:
    return _FILLED | zlib.crc32(row.reshape(-1).view(torch.uint8).numpy().tobytes())
