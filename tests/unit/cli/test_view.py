"""How a run looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

from rich.console import Console

from snowmelt_cli.view import PlainView, panel
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_trainer.contract.progress import (
    BestStatus,
    MetricsStatus,
    Progress,
    ProgressStatus,
    StageRow,
    StageStatus,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = StageRow(
    index=1,
    name="head",
    epochs=4,
    seconds=75,
    trainable_parameters=5130,
    samples_per_second=812.4,
    metrics={"accuracy": "0.912345", "loss": "0.3"},
    ended="Plateau",
)


def snapshot(
    *, percent: int = 43, accuracy: str = "0.931", warnings: tuple[str, ...] = (), workers: int | None = None
) -> Progress:
    return Progress(
        attempt=1,
        sequence=1,
        time=NOW,
        stage=StageStatus(
            index=2,
            of=5,
            name="layer4",
            unfrozen=("layer4",),
            trainable_parameters=8_400_000,
            total_parameters=11_200_000,
        ),
        progress=ProgressStatus(
            percent=percent,
            epoch=3,
            samples_per_second=812.4,
            estimated_completion_time=NOW + timedelta(minutes=12),
            workers=workers,
        ),
        metrics=MetricsStatus(
            train={"loss": "0.2111"},
            validation={"accuracy": accuracy},
            best=BestStatus(metric="accuracy", value="0.934", stage=1, epoch=4),
        ),
        stages=(ROW,),
        warnings=warnings,
    )


def drawn(snapshot: Progress | FineTuneJobStatus, *, width: int = 140) -> str:
    out = StringIO()
    Console(file=out, width=width).print(panel("shoes", snapshot, state="Running", now=NOW))
    return out.getvalue()


def plain(*snapshots: Progress) -> list[str]:
    out = StringIO()
    view = PlainView("shoes", Console(file=out))
    for each in snapshots:
        view.show(each, state="Running", now=NOW)
    return out.getvalue().splitlines()


def test_the_panel_shows_finished_stages_the_one_under_way_and_what_is_left() -> None:
    text = drawn(snapshot(warnings=("2 duplicates",)))
    for part in ("shoes  Running", "1 head", "accuracy 0.9123", "Plateau", "75s", "2/5 layer4", "epoch 3", "43%"):
        assert part in text
    for part in ("(75.0%)", "812 images/s", "ETA 12m", "best accuracy 0.934 (stage 1, epoch 4)", "! 2 duplicates"):
        assert part in text


def test_the_panel_of_a_status_is_the_same() -> None:
    said = snapshot()
    status = FineTuneJobStatus(stage=said.stage, progress=said.progress, metrics=said.metrics, stages=said.stages)
    assert drawn(status) == drawn(said)


def test_a_job_of_which_nothing_is_known_can_be_shown() -> None:
    assert drawn(FineTuneJobStatus()).split() == ["shoes", "Running"]


def test_plain_lines_tell_each_fact_once() -> None:
    lines = plain(snapshot(), snapshot(percent=44), snapshot(percent=50, accuracy="0.95"))
    assert lines == [
        "shoes: Running",
        "stage 1 head ended (Plateau): 4 epochs, 75s, accuracy 0.9123, loss 0.3",
        "stage 2/5 layer4: 8,400,000 of 11,200,000 (75.0%) parameters are trained",
        " 43%  stage 2/5 layer4: train loss 0.2111 · validation accuracy 0.931 · best accuracy 0.934 (stage 1, epoch 4)"
        "  ETA 12m",
        " 50%  stage 2/5 layer4: train loss 0.2111 · validation accuracy 0.95 · best accuracy 0.934 (stage 1, epoch 4)"
        "  ETA 12m",
    ]


def test_the_number_of_workers_is_shown_where_there_are_several() -> None:
    assert "3 workers" in drawn(snapshot(workers=3))
    assert "worker" not in drawn(snapshot(workers=1))


def test_plain_lines_tell_every_change_of_the_number_of_workers() -> None:
    lines = plain(*(snapshot(workers=workers) for workers in (1, 1, 2, 2, 1)))
    assert [line for line in lines if "became" in line] == [
        "shoes: 1 workers became 2",
        "shoes: 2 workers became 1",
    ]
