"""What `kubectl get finetunejobs` shows of a snapshot, and what goes into status."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.progress.display import display, duration_cell, metric_cell, stage_cell, status_of
from snowmelt_trainer.contract.progress import BestStatus, MetricsStatus, ProgressStatus, decimal
from tests.unit.progress.snapshots import NOON, snapshot

RUNNING = snapshot(
    7,
    stage=2,
    progress=ProgressStatus(percent=43, estimated_completion_time=NOON + timedelta(minutes=12)),
    metrics=MetricsStatus(best=BestStatus(metric="accuracy", value="0.934", stage=1, epoch=4)),
)


def test_a_running_job_shows_stage_progress_metric_and_eta() -> None:
    cells = display(RUNNING, now=NOON).to_json_dict()
    assert cells == {"stage": "2/5 layer3", "progress": "43%", "metric": "accuracy 0.934", "eta": "12m"}


def test_a_job_that_has_said_little_shows_little() -> None:
    assert display(snapshot(0, stage=None), now=NOON).to_json_dict() == {"progress": "0%"}


def test_a_finished_job_has_no_eta() -> None:
    finished = snapshot(9, final=True, progress=RUNNING.progress)
    assert display(finished, now=NOON).eta is None


@pytest.mark.parametrize(
    ("seconds", "cell"),
    [(-5, "0s"), (45, "45s"), (119.6, "2m"), (720, "12m"), (7199, "2h0m"), (12_000, "3h20m"), (187_200, "2d4h")],
)
def test_durations_read_as_kubectl_writes_ages(seconds: float, cell: str) -> None:
    assert duration_cell(timedelta(seconds=seconds)) == cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("0.9342", "loss 0.934"),
        ("1", "loss 1.000"),
        ("0", "loss 0.000"),
        ("1e-05", "loss 1e-05"),
        ("12345", "loss 1.23e+04"),
    ],
)
def test_a_metric_shows_three_digits_that_say_something(value: str, cell: str) -> None:
    assert metric_cell(BestStatus(metric="loss", value=value, stage=1, epoch=1)) == cell


def test_a_long_stage_name_is_cut() -> None:
    assert RUNNING.stage is not None
    cell = stage_cell(RUNNING.stage.model_copy(update={"name": "x" * 256}))
    assert len(cell) == len("2/5 ") + 32
    assert cell.endswith("…")


@given(st.floats(min_value=-1e30, max_value=1e30), st.timedeltas())
def test_any_metric_and_any_duration_fit_their_cells(value: float, duration: timedelta) -> None:
    assert len(metric_cell(BestStatus(metric="accuracy", value=decimal(value), stage=1, epoch=1))) <= 24
    assert duration_cell(duration)


def test_status_holds_result_and_the_final_word_of_a_successful_run() -> None:
    status = status_of(snapshot(9, final=True), now=NOON)
    assert status["result"]["modelUri"] == "pvc://models/shoes"
    assert status["trainer"] == {
        "attempt": 1,
        "sequence": 9,
        "final": {
            "outcome": "Succeeded",
            "reason": "TargetMet",
            "message": "met",
            "result": {
                "modelUri": "pvc://models/shoes",
                "sha256": "0" * 64,
                "test": {"accuracy": "0.962"},
            },
        },
    }


def test_status_never_holds_a_field_of_the_reconciler() -> None:
    reconcilers = {"phase", "conditions", "attempts", "observedGeneration", "rayJobName", "finishedAt"}
    assert not reconcilers & status_of(snapshot(9, final=True), now=NOON).keys()


def test_what_is_written_is_read_back_as_the_same_status() -> None:
    status = status_of(RUNNING, now=NOON)
    read = FineTuneJobStatus.model_validate(status, by_alias=True, by_name=False)
    assert (read.stage, read.metrics, read.trainer and read.trainer.sequence) == (RUNNING.stage, RUNNING.metrics, 7)
    assert read.progress is not None
    assert read.progress.last_update_time == NOON


def test_no_map_of_status_is_empty_because_server_side_apply_would_make_it_null() -> None:
    status = status_of(snapshot(1, metrics=MetricsStatus(validation={"accuracy": "0.9"})), now=NOON)
    assert status["metrics"] == {"validation": {"accuracy": "0.9"}}
    assert "metrics" not in status_of(snapshot(1), now=NOON)
