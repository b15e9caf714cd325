"""Health that tells the truth, above all when the event loop does not run."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from snowmelt_operator.api.conditions import Phase
from snowmelt_operator.health import HealthServer, Limits, Vitals, liveness, readiness
from snowmelt_operator.metrics import Metrics

NOW = 1000.0
WELL = Vitals(
    loop_beat=NOW,
    watches={"finetunejobs": NOW - 60, "rayjobs": NOW - 60},
    api_answered=NOW - 60,
    workers_wanted=8,
    workers_alive=8,
    listed=frozenset({"FineTuneJob", "RayJob"}),
    to_list=frozenset({"FineTuneJob", "RayJob"}),
    key_loaded=True,
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loop_beat": NOW - 20}, "the event loop has stood still for 20 s"),
        ({"workers_alive": 6}, "2 of 8 workers died"),
        ({"watches": {"finetunejobs": NOW, "rayjobs": NOW - 2000}}, "the watch of rayjobs was last opened 2000 s ago"),
    ],
)
def test_what_only_a_restart_mends_is_not_alive(change: dict[str, Any], words: str) -> None:
    broken = replace(WELL, **change)
    assert any(words in problem for problem in liveness(broken, NOW, Limits()))
    assert readiness(broken, NOW, Limits())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key_loaded": False}, "key"),
        ({"listed": frozenset({"RayJob"})}, "not listed yet: FineTuneJob"),
        ({"api_answered": None}, "has not answered yet"),
        ({"api_failed": NOW - 1}, "could not be reached"),
        ({"loop_beat": None}, "has not started"),
    ],
)
def test_what_passes_by_itself_is_alive_and_not_ready(change: dict[str, object], words: str) -> None:
    waiting = replace(WELL, **change)
    assert liveness(waiting, NOW, Limits()) == ()
    assert any(words in problem for problem in readiness(waiting, NOW, Limits()))


def test_an_operator_that_does_its_work_is_alive_and_ready() -> None:
    assert liveness(WELL, NOW, Limits()) == readiness(WELL, NOW, Limits()) == ()


@pytest.fixture
def served() -> Iterator[tuple[Vitals, str]]:
    vitals, metrics = Vitals(), Metrics()
    server = HealthServer(vitals, metrics.render, Limits(loop_lag=0.2))
    port = server.start("127.0.0.1", 0)
    yield vitals, f"http://127.0.0.1:{port}"
    server.stop()


async def test_a_stuck_event_loop_is_seen_from_outside(served: tuple[Vitals, str]) -> None:
    vitals, url = served
    beating = asyncio.create_task(vitals.beat())
    await asyncio.sleep(0)
    assert (await asyncio.to_thread(httpx.get, f"{url}/healthz")).status_code == 200
    time.sleep(0.9)
    answer = httpx.get(f"{url}/healthz")
    beating.cancel()
    assert answer.status_code == 503
    assert "stood still" in answer.json()["problems"][0]


def test_an_operator_that_has_not_started_is_not_ready(served: tuple[Vitals, str]) -> None:
    assert httpx.get(f"{served[1]}/readyz").status_code == 503


def test_another_path_says_which_there_are(served: tuple[Vitals, str]) -> None:
    answer = httpx.get(f"{served[1]}/")
    assert (answer.status_code, "/readyz" in answer.text) == (404, True)


def test_many_idle_clients_do_not_use_up_the_threads(served: tuple[Vitals, str]) -> None:
    host, port = served[1].removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(200)]
    for client in idle:
        client.close()
    assert httpx.get(f"{served[1]}/metrics", timeout=5).status_code == 200


def test_metrics_count_what_happened() -> None:
    metrics = Metrics()
    metrics.reconciled(0.02, failed=False)
    metrics.reconciled(0.02, failed=True)
    metrics.progress_answered(409)
    metrics.api_request("apply", "RayJob")
    metrics.attempt_failed("WorkerLost")
    metrics.queue_depth(3)
    text = metrics.render().decode()
    for line in (
        'snowmelt_reconcile_duration_seconds_count{result="success"} 1.0',
        'snowmelt_reconcile_duration_seconds_count{result="error"} 1.0',
        'snowmelt_progress_reports_total{code="409"} 1.0',
        'snowmelt_api_requests_total{resource="RayJob",verb="apply"} 1.0',
        'snowmelt_attempts_failed_total{reason="WorkerLost"} 1.0',
        "snowmelt_queue_depth 3.0",
        "snowmelt_build_info{",
        "process_resident_memory_bytes ",
    ):
        assert line in text


def test_each_job_is_counted_in_its_newest_phase_and_no_more_once_it_is_gone() -> None:
    metrics = Metrics()
    for phase in (None, Phase.STARTING, Phase.RUNNING, Phase.RUNNING):
        metrics.saw_job("a", phase)
    metrics.saw_job("b", None)
    metrics.saw_job("c", Phase.FAILED)
    metrics.lost_job("c")
    metrics.lost_job("never seen")
    text = metrics.render().decode()
    counts = {phase: f'snowmelt_jobs{{phase="{phase}"}} ' for phase in Phase}
    assert [counts[phase] + "1.0" in text for phase in (Phase.RUNNING, Phase.PENDING)] == [True, True]
    assert [counts[phase] + "0.0" in text for phase in (Phase.STARTING, Phase.FAILED)] == [True, True]
