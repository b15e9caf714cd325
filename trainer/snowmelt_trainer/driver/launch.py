"""Runs the training as one Ray Train run, on the Ray it is in or on one of its own."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import ray
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import FailureConfig, LoggingConfig
from ray.train.v2.api.config import RunConfig as RayRunConfig
from ray.train.v2.api.result import Result

from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.run import RunConfig, WorkerGroup
from snowmelt_trainer.data.samples import TargetData
from snowmelt_trainer.driver.failures import StopAtNamedFailure, StopWithoutProgress
from snowmelt_trainer.driver.handover import handover
from snowmelt_trainer.driver.relay import relayed
from snowmelt_trainer.driver.scaling import ElasticTrainer, scaling_config
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.errors import RunError, first_line

log = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 2
"""How often Ray Train starts the workers anew after one died, without a checkpoint written in between, within one
attempt; where their number may change, each that may go adds one. They resume from the newest checkpoint."""
OBJECT_STORE_BYTES = 256 * 2**20
START_TRIES = 3


def train_worker(payload: dict[str, Any]) -> str:
    """What each worker calls: `driver.worker.train_worker`. That loads torchvision, and with it torch's compiler, for
    seconds; neither the driver nor Ray Train's controller, which has to know this function, needs them."""
    from snowmelt_trainer.driver import worker  # noqa: PLC0415

    return worker.train_worker(payload)


def _ray_train_settings(config: RunConfig) -> dict[str, str]:
    return {
        # How long workers of a decided number wait for their places. 60 s are too few where nodes still start; but
        # where another number would do, what stands in the way is a node that has just died, and the number is wrong.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20" if config.workers.elastic else "600",
        # The end of a run, and a worker's death, are noticed at this pace.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }


@contextmanager
def connected(config: RunConfig) -> Iterator[None]:
    """Connects to the Ray that RAY_ADDRESS names, as it does under the Ray Jobs API; where it names none, starts one on
    the loopback interface with just the CPUs that the workers need, and stops it at the end.

    Raises:
        RunError: RayUnavailable.
    """
    with _environment(_ray_train_settings(config)), _ray(config):
        log.info("Ray is reached")
        yield


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Sets the variables that are not set, for the time being."""
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _ray(config: RunConfig) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    _reach_ray(config)
    try:
        yield
    finally:
        ray.shutdown()


def _reach_ray(config: RunConfig) -> None:
    """Ray gives a node 30 s to start, which a busy machine may exceed: hence more tries than one."""
    for tries_left in reversed(range(START_TRIES)):
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(logging_level=logging.WARNING, log_to_driver=False)
            else:
                _start_ray(config)
        except Exception as error:  # ray's own type for a node that is late
            ray.shutdown()
            log.warning("Ray did not start: %s", error)
            if tries_left == 0:
                message = f"Ray did not start in {START_TRIES} tries; the last says: {first_line(error)}"
                raise RunError(Reason.RAY_UNAVAILABLE, message) from error
        else:
            return


def _start_ray(config: RunConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=math.ceil(workers_here(config.workers, os.cpu_count() or 1) * config.workers.cpus),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )


def workers_here(workers: WorkerGroup, cpus: int) -> int:
    """How many workers a Ray of our own makes room for, on a machine with so many CPUs: as many as were asked for, or
    between the fewest and the most as many as have a CPU of their own."""
    return max(workers.fewest, min(workers.most, int(cpus // workers.cpus)))


def train(config: RunConfig, data: TargetData, receive: Callable[[Progress], None]) -> Trained:
    """Trains to the end; `receive` hears of the progress, in a thread of its own.

    Raises:
        ControllerError: holding the RunError that ended the run (also when the workers failed more often than
            MAX_WORKER_FAILURES), or what the controller could not do.
    """
    workers = config.workers
    failures = MAX_WORKER_FAILURES + workers.most - workers.fewest
    with relayed(receive) as send, handover() as desk, tempfile.TemporaryDirectory(prefix="snowmelt-ray-") as scratch:
        trainer = ElasticTrainer(
            train_worker,
            handover=desk,
            train_loop_config={
                "config": config.model_dump_json(by_alias=True),
                "data": data,
                "send": send,
                "handover": desk,
            },
            torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo"),
            scaling_config=scaling_config(workers),
            # Ray's own storage holds nothing of ours (see training/checkpoint.py). It is a new folder each time,
            # because a second run with the same folder and name would silently resume from what the first left there.
            run_config=RayRunConfig(
                name=f"{config.job.uid}-a{config.job.attempt}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=-1),  # StopWithoutProgress counts
                callbacks=[StopAtNamedFailure(), StopWithoutProgress(desk.count, limit=failures)],
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        result = cast(Result, trainer.fit())
        return Trained.model_validate_json(str(result.return_value))
