"""A snapshot of the trainer as the part of status that the progress endpoint owns. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from snowmelt_operator.api.status import DisplayStatus, FineTuneJobStatus, TrainerStatus
from snowmelt_trainer.contract.progress import BestStatus, Progress, StageStatus

WIDEST_NAME = 32
"""Characters of a stage's name that fit a cell."""


def status_of(progress: Progress, *, now: datetime) -> dict[str, Any]:
    """What field manager snowmelt-progress applies to /status: all of it each time, so what is gone is taken back."""
    status = FineTuneJobStatus(
        stage=progress.stage,
        progress=progress.progress.model_copy(
            update={"last_update_time": progress.progress.last_update_time or progress.time}
        ),
        metrics=progress.metrics,
        stages=progress.stages,
        checkpoint=progress.checkpoint,
        data=progress.data,
        warnings=progress.warnings,
        trainer=TrainerStatus(attempt=progress.attempt, sequence=progress.sequence, final=progress.final),
        result=progress.final.result if progress.final is not None else None,
        display=display(progress, now=now),
    )
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(_OWNED))
    return {field: value for field, value in _without_empty_maps(document).items() if value != []}


def _without_empty_maps(document: dict[str, Any]) -> dict[str, Any]:
    """Server-side apply turns a map whose last key we take back into null, which the schema refuses."""
    pruned = {key: _without_empty_maps(value) if isinstance(value, dict) else value for key, value in document.items()}
    return {key: value for key, value in pruned.items() if value != {}}


_OWNED = ("stage", "progress", "metrics", "stages", "checkpoint", "data", "warnings", "trainer", "result", "display")


def display(progress: Progress, *, now: datetime) -> DisplayStatus:
    """Ready-made cells for `kubectl get`; a cell without content is None."""
    end = progress.progress.estimated_completion_time if progress.final is None else None
    return DisplayStatus(
        stage=stage_cell(progress.stage) if progress.stage is not None else None,
        progress=f"{progress.progress.percent}%",
        metric=metric_cell(progress.metrics.best) if progress.metrics.best is not None else None,
        eta=duration_cell(end - now) if end is not None else None,
    )


def stage_cell(stage: StageStatus) -> str:
    """`2/5 layer4`; a long name is cut to keep the table readable."""
    name = stage.name if len(stage.name) <= WIDEST_NAME else stage.name[: WIDEST_NAME - 1] + "…"
    return f"{stage.index}/{stage.of} {name}"


def metric_cell(best: BestStatus) -> str:
    """`accuracy 0.934`: three decimals where these say something, else three significant digits."""
    value = float(best.value)
    plain = value == 0 or 0.001 <= abs(value) < 1000
    return f"{best.metric} {value:.3f}" if plain else f"{best.metric} {value:.3g}"


def duration_cell(duration: timedelta) -> str:
    """A duration as kubectl writes ages: 45s, 12m, 3h20m, 2d4h; what is overdue is 0s."""
    seconds = max(0, round(duration.total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60}m"
    return f"{minutes // (24 * 60)}d{minutes // 60 % 24}h"
