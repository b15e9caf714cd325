"""How many workers train: a fixed number, or as many as there is room for.

Ray Train changes the number of a running group by starting all workers anew. Two things its own policy does not do, and
this one does: it has a checkpoint written first, so that no step is trained twice; and it looks at the nodes as they
are, where Ray's coordinator answers with what it saw up to 20 s ago (in which a node may have died, or come).
"""

from __future__ import annotations

import logging
from typing import Any

import ray
import ray.exceptions
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from snowmelt_trainer.contract.run import WorkerGroup
from snowmelt_trainer.driver.handover import Handover

log = logging.getLogger(__name__)

LOOK_FOR_ROOM_SECONDS = 30.0
"""How often a running group looks whether there is room for more workers. A change costs about ten seconds, so nodes
that come one after another are better taken in together."""
_COORDINATOR_SECONDS = 5.0


def scaling_config(workers: WorkerGroup) -> ScalingConfig:
    """The workers as Ray Train is told of them."""
    return ScalingConfig(
        num_workers=(workers.fewest, workers.most) if workers.elastic else workers.replicas,
        use_gpu=workers.gpus > 0,
        resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        elastic_resize_monitor_interval_s=LOOK_FOR_ROOM_SECONDS,
    )


class ResizeAtCheckpoint(ElasticScalingPolicy):
    """Ray's elastic policy, whose changes of a healthy group wait for a checkpoint."""

    def __init__(self, config: ScalingConfig, handover: Handover) -> None:
        super().__init__(config)
        self._handover = handover
        self._waiting = False

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """At the start, and after a failure: as many as there is room for, if these are enough."""
        if self._waiting:
            self._waiting = False
            self._handover.withdraw()
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """First a request for a checkpoint; once it is written, the change, if it still makes sense."""
        now = worker_group_state.num_workers
        if not self._waiting:
            decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
            if isinstance(decision, ResizeDecision):
                log.info("there is room for %d workers, %d train: waiting for a checkpoint", decision.num_workers, now)
                self._handover.ask()
                self._waiting = True
            return NoopDecision()
        self._maybe_send_resource_request()  # type: ignore[no-untyped-call]
        if not self._handover.answered():
            return NoopDecision()
        self._waiting = False
        self._handover.withdraw()
        reserved = self._get_reserved_resources()
        wanted = now if reserved is None else self._count_possible_workers(reserved)
        if wanted == now or wanted < self.scaling_config.min_workers:
            return NoopDecision()
        log.info("from %d workers to %d", now, wanted)
        return self._get_resize_decision(wanted)

    def _get_reserved_resources(self) -> Any:
        try:
            return ray.get(
                self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True),
                timeout=_COORDINATOR_SECONDS,
            )
        except ray.exceptions.RayError as error:
            log.warning("cannot see how much room there is: %s", error)
            return None


class ElasticTrainer(TorchTrainer):
    """Ray's trainer, with the policy above where the number of workers may change."""

    def __init__(self, *arguments: Any, handover: Handover, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._handover = handover

    def _initialize_and_run_controller(self, **keywords: Any) -> Any:
        config = self.train_run_context.scaling_config
        if config.elasticity_enabled:
            keywords["scaling_policy"] = ResizeAtCheckpoint(config, self._handover)
        return super()._initialize_and_run_controller(**keywords)
