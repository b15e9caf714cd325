"""The parts of a start, from what the trainer said and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.suite.startup import parts
from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus, StageStatus
from snowmelt_trainer.contract.reasons import Outcome, Reason

BEGAN = datetime(2026, 11, 25, 6, tzinfo=UTC)
STAGE = StageStatus(index=1, of=1, name="head", unfrozen=("head",), trainable_parameters=1, total_parameters=2)


def said(second: float, *, step: int = 0, **fields: Any) -> Progress:
    moment = BEGAN + timedelta(seconds=second)
    return Progress(
        attempt=1, sequence=0, time=moment, progress=ProgressStatus(percent=0, epoch=0, step=step), **fields
    )


def test_the_parts_of_a_start_add_up_to_the_whole_run() -> None:
    final = FinalRecord(outcome=Outcome.SUCCEEDED, reason=Reason.STAGES_COMPLETED, message="done")
    told = [said(3.0), said(8.0, stage=STAGE), said(9.5, step=2, stage=STAGE), said(12.0, step=5, final=final)]
    found = parts(told, BEGAN, BEGAN + timedelta(seconds=14))
    assert list(found.values()) == pytest.approx([3.0, 5.0, 1.5, 2.5, 2.0])
    assert sum(found.values()) == pytest.approx(14.0)
