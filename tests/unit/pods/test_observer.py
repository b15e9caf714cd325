"""What is asked about a job's pods when something went wrong, and the watch has not told yet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from snowmelt_operator.api.trouble import LastWords
from snowmelt_operator.cluster import Cluster, ClusterError, ClusterRefusedError
from snowmelt_operator.pods.observer import Pods
from tests.unit.pods.documents import UID, container, ended, pod, running

NAME = "shoes-a1-submitter"
FAILED = pod(NAME, phase="Failed", containerStatuses=[container(terminated=ended("Error", 1))])


class Slow:
    """An API server whose watch is late: lists show what it will tell."""

    def __init__(self, *pods: dict[str, Any], error: ClusterError | None = None) -> None:
        self.pods, self.error = pods, error
        self.asked: list[str] = []

    async def list_objects(self, api_version: str, kind: str, *, label_selector: str) -> list[dict[str, Any]]:
        assert (api_version, kind) == ("v1", "Pod")
        self.asked.append(label_selector)
        if self.error is not None:
            raise self.error
        return list(self.pods)

    async def log_tail(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes:
        return f"{namespace}/{pod}/{container}/{previous} ended".encode()


def last_words(cluster: Slow, *heard: dict[str, Any]) -> LastWords | None:
    pods = Pods(cast(Cluster, cluster), wake=lambda *_: None)
    for document in heard:
        pods.heard(document, deleted=False)
    return asyncio.run(pods.last_words("team", UID, 1))


def test_a_pod_that_failed_before_the_watch_has_said_so_is_looked_at_once() -> None:
    cluster = Slow(FAILED)
    assert last_words(cluster, pod(NAME, version=99, **running())) == LastWords(
        NAME, f"team/{NAME}/ray-head/False ended"
    )
    assert cluster.asked == [f"snowmelt.dev/job,snowmelt.dev/uid={UID}"]


def test_where_the_watch_has_said_it_nothing_more_is_asked() -> None:
    cluster = Slow()
    assert last_words(cluster, FAILED) is not None
    assert cluster.asked == []


@pytest.mark.parametrize(
    "error", [ClusterError("no answer"), ClusterRefusedError("not allowed", status=403, reason="Forbidden")]
)
def test_pods_that_cannot_be_listed_cost_the_evidence_and_nothing_else(error: ClusterError) -> None:
    assert last_words(Slow(error=error)) is None
