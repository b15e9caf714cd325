"""The whole driver under a real Ray that hands out the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import ray

from snowmelt_trainer.contract import Outcome, Reason, RunConfig
from snowmelt_trainer.contract.progress import FinalRecord, Progress
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.failures import explain
from snowmelt_trainer.driver.main import fine_tune

Configure = Callable[..., RunConfig]
ON_THE_GPU = {"workers": {"replicas": 1, "gpus": 1, "cpus": 2}}


@pytest.fixture(autouse=True, scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of the test's own, which finds the GPU by itself."""
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=128 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


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
