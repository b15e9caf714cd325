"""The whole driver under a real Ray that hands out the GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from snowmelt_trainer.contract import Outcome, Reason, RunConfig
from snowmelt_trainer.contract.progress import FinalRecord, Progress
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.failures import explain
from snowmelt_trainer.driver.main import fine_tune

pytestmark = pytest.mark.usefixtures("local_ray")
Configure = Callable[..., RunConfig]
ON_THE_GPU = {"workers": {"replicas": 1, "gpus": 1, "cpus": 2}}


def attempt(config: RunConfig) -> tuple[FinalRecord, list[Progress]]:
    sent: list[Progress] = []
    return fine_tune(config, Announcer(config.job.attempt, sent.append)), sent


def test_a_job_of_one_worker_with_a_gpu_succeeds(configure: Configure) -> None:
    record, sent = attempt(configure(optimization={"precision": "Auto", "headStart": "Auto"}, **ON_THE_GPU))
    assert record.outcome is Outcome.SUCCEEDED, record.message
    assert sent[-1].stages


def test_a_full_gpu_ends_the_job_with_its_reason(configure: Configure) -> None:
    config = configure(
        backbone={"architecture": "vit_b_16", "weights": "None"},
        data={"imageSize": 1024},
        unfreezing={"strategy": "Full"},
        optimization={"batchSize": 180, "cache": {"mode": "Never"}},
        **ON_THE_GPU,
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011
        attempt(config)
    reason, message = explain(caught.value)
    assert reason is Reason.GPU_OUT_OF_MEMORY
    assert "lower spec.optimization.batchSize" in message
