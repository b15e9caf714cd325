"""Two replicas and one Lease, with the real API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hack.kube import ControlPlane
from hack.kube.controlplane import eventually
from hack.localoperator import LocalOperator
from snowmelt_operator import leadership
from tests.controlplane.api import Api, is_at_attempt
from tests.controlplane.jobs import manifest

pytestmark = pytest.mark.timeout(180)


def holder(plane: ControlPlane, lease: str) -> str | None:
    leases: list[dict[str, Any]] = plane.get("leases", "-n", "snowmelt-system")["items"]
    return next((found["spec"].get("holderIdentity") for found in leases if found["metadata"]["name"] == lease), None)


def two_replicas(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, lease: str
) -> tuple[LocalOperator, LocalOperator]:
    """The leader, `first`, and a standby, `second`, which is ready: it takes progress reports, and launches nothing."""
    leader, standby = (
        make_operator(identity=name, leader_election="true", lease_name=lease) for name in ("first", "second")
    )
    leader.start()
    eventually(lambda: holder(plane, lease) == "first", "the first replica does not lead")
    standby.start()
    return leader, standby


def test_a_standby_takes_over_when_the_leader_dies_and_only_then(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    lease = f"lease-{api.namespace}"
    leader, _standby = two_replicas(make_operator, plane, lease)

    api.create("finetunejobs", manifest("before"))
    api.until("finetunejobs", "before", is_at_attempt(1))
    leader.kill()
    api.create("finetunejobs", manifest("after"))
    api.until("finetunejobs", "after", is_at_attempt(1), within_s=60)
    assert holder(plane, lease) == "second"
    assert len(api.list("rayjobs")) == 2


def test_a_leader_that_is_asked_to_end_leaves_its_lease_to_the_standby_at_once(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    lease = f"lease-{api.namespace}"
    leader, _standby = two_replicas(make_operator, plane, lease)
    leader.stop()
    asked_every = leadership.RETRY_SECONDS
    eventually(lambda: holder(plane, lease) == "second", "the Lease had to expire", within_s=3 * asked_every)
    assert 3 * asked_every < leadership.LEASE_SECONDS


def test_a_leader_that_loses_the_api_server_ends_so_that_another_may_lead(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    lease = f"lease-{api.namespace}"
    operator = make_operator(identity="only", leader_election="true", lease_name=lease)
    operator.start()
    eventually(lambda: holder(plane, lease) == "only", "the replica does not lead")
    plane.stop_apiserver()
    try:
        eventually(lambda: not operator.service.runs, "it still leads though nobody can know", within_s=60)
    finally:
        plane.start_apiserver()


def test_a_standby_is_ready_again_once_the_api_server_is_back(
    make_operator: Callable[..., LocalOperator], plane: ControlPlane, api: Api
) -> None:
    """It asks for nothing but the Lease, and what is not ready gets no reports to ask for more."""
    lease = f"lease-{api.namespace}"
    leader, standby = two_replicas(make_operator, plane, lease)
    plane.stop_apiserver()
    leader.kill()
    try:
        eventually(lambda: not standby.is_ready(), "nobody can reach the API server, and it claims to be ready")
    finally:
        plane.start_apiserver()
    eventually(standby.is_ready, "it is never ready again")
