"""One run of the benchmark: a control plane and an operator of its own, then the figures."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.operator import audit
from bench.operator.load import NAMESPACE, Timeline, apply_and_watch
from hack.kube import ControlPlane, kuberay_crds
from hack.localoperator import LocalOperator

REPOSITORY = Path(__file__).parents[2]
WITHIN_S = 600.0
SETTLE_S = 10.0
CALM_WITHIN_S = 60.0
CALM_CPU_SECONDS = 0.2
"""Processor time in two seconds that counts as doing nothing."""


@dataclass(frozen=True)
class Figures:
    """What one run measured; memory in MiB."""

    timeline: Timeline
    load_before: float
    """The machine's load average before its control plane was started: times mean little when others use it."""
    requests_per_job: dict[tuple[str, str], float]
    writes_per_job: float
    start_requests: int
    """Requests of the operator before the first job."""
    idle_per_minute: dict[tuple[str, str], float]
    cpu_seconds: float
    """Processor time of the operator from the first apply until it had settled."""
    rss_peak: float
    rss_settled: float


def measure(folder: Path, *, jobs: int, idle_seconds: float) -> Figures:
    """Run it in an empty folder.

    Raises:
        hack.kube.ControlPlaneError: a part does not come up.
        TimeoutError: not all jobs were launched within ten minutes.
    """
    load_before = os.getloadavg()[0]
    with ControlPlane(folder, audit=True) as plane:
        plane.install_crds(*sorted((REPOSITORY / "crds").glob("*.yaml")), *kuberay_crds())
        plane.kubectl("apply", "-f", REPOSITORY / "hack/kube/rbac.yaml")
        plane.kubectl("create", "namespace", NAMESPACE)
        with LocalOperator(plane, folder / "operator.log", trainer_image="example.com/trainer:bench") as operator:
            wait_until_calm(plane.apiserver.pid, operator.service.pid)
            begin, cpu_before = datetime.now(UTC), cpu_seconds(operator.service.pid)
            timeline = asyncio.run(apply_and_watch(plane.kubeconfig(), jobs, WITHIN_S))
            time.sleep(SETTLE_S)
            settled, cpu = datetime.now(UTC), cpu_seconds(operator.service.pid) - cpu_before
            time.sleep(idle_seconds)
            end = datetime.now(UTC)
            peak, rss = memory_mib(operator.service.pid)
        requests = audit.requests_of(plane.audit_log, "operator")
    work = [request for request in requests if begin <= request.at < settled]
    return Figures(
        timeline=timeline,
        load_before=load_before,
        requests_per_job=audit.per_job(work, jobs),
        writes_per_job=audit.writes_per_job(work, jobs),
        start_requests=sum(request.at < begin for request in requests),
        idle_per_minute=audit.per_minute(requests, settled, end),
        cpu_seconds=cpu,
        rss_peak=peak,
        rss_settled=rss,
    )


def wait_until_calm(*pids: int) -> None:
    """Let the API server finish what new CRDs give it to do (OpenAPI, caches), for a minute at most."""
    deadline = time.monotonic() + CALM_WITHIN_S
    before = sum(map(cpu_seconds, pids))
    while time.monotonic() < deadline:
        time.sleep(2)
        now = sum(map(cpu_seconds, pids))
        if now - before < CALM_CPU_SECONDS:
            return
        before = now


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, from /proc."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> tuple[float, float]:
    """Peak and present resident memory of a process, from /proc."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    peak, now = (int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    return peak, now
