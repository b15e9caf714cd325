"""Counting requests from the API server's audit log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from bench.operator.audit import parse, per_job, per_minute, writes_per_job

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def line(number: int, verb: str, resource: str, *, user: str = "operator", second: int = 0, **more: str) -> str:
    event = {
        "auditID": f"id-{number}",
        "user": {"username": user},
        "verb": verb,
        "objectRef": {"resource": resource, **more},
        "requestReceivedTimestamp": (NOON + timedelta(seconds=second)).isoformat().replace("+00:00", "Z"),
    }
    return json.dumps(event)


def test_the_stages_of_a_watch_count_as_one_request() -> None:
    assert len(parse([line(1, "watch", "rayjobs"), line(1, "watch", "rayjobs")], "operator")) == 1


def test_requests_of_other_users_do_not_count() -> None:
    assert parse([line(1, "patch", "finetunejobs", user="admin")], "operator") == []


def test_a_subresource_is_told_apart() -> None:
    (request,) = parse([line(1, "patch", "finetunejobs", subresource="status")], "operator")
    assert request.resource == "finetunejobs/status"


def test_requests_and_writes_are_given_for_each_job() -> None:
    requests = parse([line(n, "create" if n % 2 else "get", "rayjobs") for n in range(8)], "operator")
    assert per_job(requests, 4) == {("get", "rayjobs"): 1.0, ("create", "rayjobs"): 1.0}
    assert writes_per_job(requests, 4) == 1.0


def test_idle_requests_are_those_between_the_two_moments() -> None:
    requests = parse([line(n, "get", "leases", second=10 * n) for n in range(10)], "operator")
    assert per_minute(requests, NOON, NOON + timedelta(seconds=30)) == {("get", "leases"): 6.0}
