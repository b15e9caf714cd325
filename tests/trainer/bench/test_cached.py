"""The benchmark of accuracy with the cache and without: real fits of few images, and what the page makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cached.fits import CASES, Case, Outcome, fit
from bench.cached.report import interval, table
from bench.tasks.task import Task
from hack.data.folders import write_folders

SIZE = 32


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Light and dark squares, and a network that knows nothing."""
    for split in ("train", "validation", "test"):
        pictures = (
            (label, str(i), Image.fromarray(np.full((SIZE, SIZE), shade + i, np.uint8)))
            for label, shade in (("dark", 20), ("light", 200))
            for i in range(20)
        )
        write_folders(tmp_path / split, pictures)
    return Task("squares", tmp_path, "resnet18", SIZE, weights=None)


def found(*, without: list[float], cached: list[float]) -> dict[Case, list[Outcome]]:
    return {
        case: [Outcome(test, kept=0, seconds=1.0) for test in (without if case.reference else cached)] for case in CASES
    }


def test_only_what_may_keep_activations_keeps_some(task: Task) -> None:
    never, *_, asked = CASES
    without, kept = (fit(task, case, seed=0, epochs=1) for case in (never, replace(asked, cache={"mode": "Always"})))
    assert without.kept == 0 < kept.kept
    assert all(0 <= one.test <= 1 for one in (without, kept))


def test_the_interval_is_students() -> None:
    mean, half = interval([0.01, 0.02, 0.03])
    assert (mean, half) == pytest.approx((0.02, 4.302653 * 0.01 / 3**0.5))


def test_a_difference_beyond_its_interval_is_told() -> None:
    rows = table(found(without=[0.90, 0.91, 0.92], cached=[0.80, 0.81, 0.83])).splitlines()
    assert sum("**no**" in row for row in rows) == len([case for case in CASES if not case.reference])


def test_equal_fits_differ_by_nothing() -> None:
    rows = table(found(without=[0.90, 0.92], cached=[0.90, 0.92])).splitlines()
    assert all("+0.0000 ± 0.0000 | yes" in row for row in rows[2:] if "| Never |" not in row)
