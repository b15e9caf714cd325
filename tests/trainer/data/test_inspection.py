"""How files are looked at before training."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from snowmelt_trainer.data import inspection
from snowmelt_trainer.data.inspection import digests
from snowmelt_trainer.data.samples import SampleSet

FILES = 100


@pytest.mark.parametrize(("seconds", "in_turn"), [(1e-4, FILES), (1e-2, 16)])
def test_quick_files_are_looked_at_in_turn_and_slow_ones_beside_each_other(
    seconds: float, in_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, found = threading.current_thread(), []
    seen: list[int] = []

    def digest(path: str) -> bytes:
        found.append(threading.current_thread() is here)
        return path.encode().rjust(32)

    clock = count(step=16 * seconds)
    monkeypatch.setattr(inspection, "digest_of", digest)
    monkeypatch.setattr(inspection.time, "perf_counter", lambda: next(clock))
    paths = tuple(f"{i}.png" for i in range(FILES))
    digested = digests(SampleSet(paths, (0,) * FILES), seen.append)
    assert sum(found) == in_turn
    assert digested.tolist() == [path.encode().rjust(32) for path in paths]
    assert sum(seen) == FILES
