"""What the driver and the workers talk through lives on the driver's node, and outlives theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from snowmelt_trainer.driver.handover import handover
from snowmelt_trainer.driver.relay import relayed

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
MEMORY = 80 * 2**20
TIMES = 4
"""Ray would place what asks for nothing by lot."""


@pytest.fixture
def driver_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The driver's node, as KubeRay's head is: without a CPU, and beside one that has some."""
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "180")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster.head_node.node_id
    ray.shutdown()
    cluster.shutdown()


def node_of(actor: Any) -> str:
    """Where an actor lives, by its own word."""
    return str(ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())))


def test_mailbox_and_desk_live_with_the_driver(driver_node: str) -> None:
    for _ in range(TIMES):
        with relayed(lambda _: None) as sender, handover() as desk:
            assert node_of(sender._mailbox) == driver_node
            assert node_of(desk._desk) == driver_node
