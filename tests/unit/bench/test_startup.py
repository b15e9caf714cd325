"""The parts of a start, from what the trainer said and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.suite.startup import moment_of, parts
from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus, StageStatus
from snowmelt_trainer.contract.reasons import Outcome, Reason

BEGAN = datetime(2026, 11, 25, 6, tzinfo=UTC)
STAGE = StageStatus(index=1, of=1, name="head", unfrozen=("head",), trainable_parameters=1, total_parameters=2)


def said(second: float, *, step: int = 0, **fields: Any) -> Progress:
    moment = BEGAN + timedelta(seconds=second)
    return Progress(
        attempt=1, sequence=0, time=moment, progress=ProgressStatus(percent=0, epoch=0, step=step), **fields
    )


def logged(second: float, words: str) -> str:
    moment = (BEGAN + timedelta(seconds=second)).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S},{moment.microsecond // 1000:03d} INFO snowmelt_trainer: {words}"


LOG = [
    logged(3.5, "the data is read: 100 training and 20 validation images"),
    "a line of somebody else",
    logged(6.0, "Ray is reached"),
    logged(7.25, "worker 1 of 1 is there"),
    logged(8.5, "stage 1: cache: 1 views"),
]


def test_the_parts_of_a_start_add_up_to_the_whole_run() -> None:
    final = FinalRecord(outcome=Outcome.SUCCEEDED, reason=Reason.STAGES_COMPLETED, message="done")
    told = [said(3.0), said(8.0, stage=STAGE), said(9.5, step=2, stage=STAGE), said(12.0, step=5, final=final)]
    began = BEGAN.timestamp()
    found = parts(told, LOG, began=began, configured=began + 1, over=began + 14)
    assert list(found.values()) == pytest.approx([1.0, 2.0, 0.5, 2.5, 1.25, 0.75, 0.5, 1.0, 2.5, 2.0])
    assert sum(found.values()) == pytest.approx(14.0)


def test_a_start_whose_log_lacks_a_moment_has_no_parts() -> None:
    with pytest.raises(ValueError, match="did not log 'worker 1 of 1'"):
        moment_of("worker 1 of 1", LOG[:3])
