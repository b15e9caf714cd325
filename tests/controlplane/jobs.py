"""FineTuneJobs for the tests, and what a trainer reports of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from snowmelt_trainer.contract.progress import (
    CheckpointStatus,
    FinalRecord,
    MetricsStatus,
    Progress,
    ProgressStatus,
    Result,
    StageStatus,
)
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.contract.run import RunConfig
from tests.controlplane.kuberay_standin import KubeRayStandIn


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A small FineTuneJob; `spec` adds to it or replaces parts of it."""
    return {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "backbone": {"architecture": "resnet18"},
            "data": {"train": {"uri": "pvc://shoes/train"}},
            "output": {"uri": f"pvc://models/{name}"},
            **spec,
        },
    }


def snapshot(attempt: int, sequence: int, *, percent: int = 10, stage: int = 1, **more: Any) -> Progress:
    """What a trainer in the middle of a stage says."""
    return Progress(
        attempt=attempt,
        sequence=sequence,
        time=datetime.now(UTC),
        stage=StageStatus(
            index=stage,
            of=3,
            name="fc",
            unfrozen=("fc",),
            trainable_parameters=5130,
            total_parameters=11_181_642,
        ),
        progress=ProgressStatus(percent=percent, epoch=1, step=sequence, last_update_time=datetime.now(UTC)),
        metrics=MetricsStatus(validation={"accuracy": "0.9", "loss": "0.3"}),
        checkpoint=CheckpointStatus(stage=stage, epoch=1, step=sequence, time=datetime.now(UTC)),
        **more,
    )


def succeeded(attempt: int, sequence: int, name: str) -> Progress:
    """A trainer's last word on a run that went well."""
    result = Result(model_uri=f"pvc://models/{name}", sha256="0" * 64, test={"accuracy": "0.97"})
    record = FinalRecord(outcome=Outcome.SUCCEEDED, reason=Reason.TARGET_MET, message="target met", result=result)
    return snapshot(attempt, sequence, percent=100, stage=2, final=record)


def failed(attempt: int, sequence: int, reason: Reason, message: str) -> Progress:
    """A trainer's last word on a run that did not."""
    return snapshot(attempt, sequence, final=FinalRecord(outcome=Outcome.FAILED, reason=reason, message=message))


def post(kuberay: KubeRayStandIn, rayjob: str, progress: Progress, *, token_of: str | None = None) -> httpx.Response:
    """Post as the driver in the head pod does: URL from the mounted configuration, token from the mounted Secret."""
    config = RunConfig.model_validate_json(kuberay.config_of(rayjob))
    assert config.progress is not None
    return httpx.post(
        config.progress.url,
        content=progress.model_dump_json(by_alias=True, exclude_none=True),
        headers={
            "Authorization": f"Bearer {kuberay.token_of(token_of or rayjob)}",
            "Content-Type": "application/json",
        },
        timeout=15,
    )
