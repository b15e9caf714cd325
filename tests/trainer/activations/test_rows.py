"""Rows come back as they were put, from memory and from files, and a file's are found again."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snowmelt_trainer.data.rows import MemoryRows
from snowmelt_trainer.training.activations import resources
from snowmelt_trainer.training.activations.rows import FileRows, Rows

SAMPLES, WORLD, RANK = 11, 3, 1
OWN = np.array([1, 4, 7, 10])
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
Open = Callable[[Tensor], Rows]


@pytest.fixture(params=["memory", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "memory":
        return lambda like: MemoryRows(like, samples=SAMPLES, rank=RANK, world=WORLD)
    return lambda like: FileRows(tmp_path, "key", like, samples=SAMPLES)


def values(count: int, shape: tuple[int, ...] = (3, 2, 2), dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 2, 2)])
def test_rows_come_back_bit_for_bit_in_any_order(opened: Open, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    put = values(4, shape, dtype)
    rows = opened(put[:1])
    rows.put(OWN, put)
    taken = rows.take(OWN[[2, 0, 3]])
    assert taken.dtype is dtype
    assert torch.equal(taken, put[[2, 0, 3]])
    assert rows.row_bytes == put[:1].numel() * put.element_size()


def test_only_what_was_put_is_there(opened: Open) -> None:
    rows = opened(values(1))
    assert not rows.has(np.arange(SAMPLES)).any()
    rows.put(OWN[:2], values(2))
    assert np.arange(SAMPLES)[rows.has(np.arange(SAMPLES))].tolist() == [1, 4]


def test_what_is_taken_is_a_copy_that_a_suffix_may_spoil(opened: Open) -> None:
    rows = opened(values(1))
    rows.put(OWN, values(4))
    rows.take(OWN).zero_()
    assert torch.equal(rows.take(OWN), values(4))


def test_a_new_attempt_and_another_worker_find_a_files_rows(tmp_path: Path) -> None:
    FileRows(tmp_path, "key", values(1), samples=SAMPLES).put(OWN, values(4))
    again = FileRows(tmp_path, "key", values(1), samples=SAMPLES)
    assert again.has(OWN).all()
    assert torch.equal(again.take(OWN), values(4))
    assert not FileRows(tmp_path, "other", values(1), samples=SAMPLES).has(OWN).any()


def test_a_row_that_differs_from_its_mark_is_not_taken_for_whole(tmp_path: Path) -> None:
    rows = FileRows(tmp_path, "key", values(1), samples=SAMPLES)
    rows.put(OWN, values(4))
    with (tmp_path / "key.rows").open("r+b") as file:
        file.seek(4 * rows.row_bytes + 3)
        file.write(b"\x5a")
    again = FileRows(tmp_path, "key", values(1), samples=SAMPLES)
    assert OWN[again.has(OWN)].tolist() == [1, 7, 10]


def test_closing_removes_the_files(tmp_path: Path) -> None:
    rows = FileRows(tmp_path, "key", values(1), samples=SAMPLES)
    rows.put(OWN, values(4))
    rows.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def largest_file() -> Iterator[Callable[[int], None]]:
    """Has the kernel refuse to write past a number of bytes, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_the_disk_refuses_is_an_error_and_leaves_no_mark(
    tmp_path: Path, largest_file: Callable[[int], None]
) -> None:
    rows = FileRows(tmp_path, "key", values(1), samples=SAMPLES)
    largest_file(5 * rows.row_bytes)
    rows.put(OWN[:2], values(2))
    with pytest.raises(OSError, match="too large"):
        rows.put(OWN[2:], values(2))
    assert OWN[rows.has(OWN)].tolist() == [1, 4]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    resources.cache_directory("mine")
    resources.cache_directory("mine").chmod(0o777)
    with pytest.raises(PermissionError, match="not a private folder"):
        resources.cache_directory("mine")
    (tmp_path / "snowmelt-activations-link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="private folder"):
        resources.cache_directory("link")


def test_a_containers_limit_bounds_the_memory_that_may_be_used(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemAvailable:  4000 kB\n")
    assert resources.free_memory(meminfo, tmp_path / "none") == 4000 * 1024
    files = {"memory.max": "3000000\n", "memory.current": "2500000\n", "memory.stat": "anon 1\ninactive_file 500000\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert resources.free_memory(meminfo, tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.free_memory(meminfo, tmp_path) == 4000 * 1024


def test_what_an_earlier_stage_left_is_swept_away(tmp_path: Path) -> None:
    for name in ("mine.rows", "mine.marks", "stale.rows", "stale.marks"):
        (tmp_path / name).touch()
    resources.sweep(tmp_path, {"mine"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.marks", "mine.rows"]
