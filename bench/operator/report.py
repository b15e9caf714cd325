"""The figures as a page of the documentation. Pure, but for what it reads of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from statistics import median

from bench.operator.measure import Figures
from bench.report.machine import installed, machine, versions
from hack.kube.binaries import ETCD, KUBERAY, KUBERNETES

PACKAGES = ("kopf", "kubernetes", "pydantic", "aiohttp")


def page(runs: Sequence[Figures], *, jobs: int, idle_seconds: float, today: date) -> str:
    """docs/benchmarks-operator.md."""
    return f"""# Benchmark: the operator under {jobs:,} FineTuneJobs

`make bench-operator` writes this page. Measured on {today.isoformat()}: {machine()}.
Kubernetes {KUBERNETES}, etcd {ETCD}, CRDs of KubeRay {KUBERAY}; {versions(installed(PACKAGES, under=()))}.

A real kube-apiserver and etcd run on the same machine and share its cores with the operator (one process, its default
settings, launcher `kuberay`) and with the client that applies the jobs over 16 connections. No kubelet and no KubeRay
run: the figures are of the operator alone. Requests are counted from the API server's audit log, for the operator's
user. {len(runs)} run(s), each with a new control plane; the median, and each run in brackets.

{summary(runs, jobs)}

## Requests of the operator for each job

{requests_table(runs)}

Before the first job it sends {_cell([run.start_requests for run in runs], "{:.0f}")} requests: lists, watches, its key.

## Requests a minute when idle

Counted over {idle_seconds:.0f} s, beginning 10 s after the last status was written.

{idle_table(runs)}
"""


def summary(runs: Sequence[Figures], jobs: int) -> str:
    """The table of what matters, with the aim beside it."""
    rows: list[tuple[str, str, Callable[[Figures], float], str]] = [
        (f"{jobs:,} FineTuneJobs applied", "s", lambda run: run.timeline.applied, ""),
        ("all RayJobs exist", "s", lambda run: run.timeline.launched, "10"),
        ("all statuses say so", "s", lambda run: run.timeline.reported, "10"),
        ("writes a job", "", lambda run: run.writes_per_job, "at most 4"),
        ("requests a job", "", lambda run: sum(run.requests_per_job.values()), ""),
        ("load average before", "", lambda run: run.load_before, "quiet: below 0.5"),
        ("processor time of the operator", "s", lambda run: run.cpu_seconds, ""),
        ("resident memory, peak", "MiB", lambda run: run.rss_peak, "150"),
        ("resident memory, settled", "MiB", lambda run: run.rss_settled, ""),
        ("requests a minute when idle", "", lambda run: sum(run.idle_per_minute.values()), "0"),
    ]
    lines = ["| | measured | aim |", "|---|---|---|"]
    for name, unit, figure, aim in rows:
        values = [figure(run) for run in runs]
        lines.append(f"| {name} | {_cell(values)} {unit} | {aim} |")
    return "\n".join(lines)


def requests_table(runs: Sequence[Figures]) -> str:
    return _by_verb_and_resource([run.requests_per_job for run in runs], "requests a job")


def idle_table(runs: Sequence[Figures]) -> str:
    tables = [run.idle_per_minute for run in runs]
    return _by_verb_and_resource(tables, "requests a minute") if any(tables) else "None."


def _by_verb_and_resource(tables: Sequence[dict[tuple[str, str], float]], unit: str) -> str:
    keys = list(dict.fromkeys(key for table in tables for key in table))
    lines = [f"| verb | resource | {unit} |", "|---|---|---|"]
    lines += [
        f"| {verb} | {resource} | {_cell([table.get((verb, resource), 0.0) for table in tables])} |"
        for verb, resource in keys
    ]
    return "\n".join(lines)


def _cell(values: Sequence[float], form: str = "{:.2f}") -> str:
    each = ", ".join(form.format(value) for value in values)
    return form.format(median(values)) + (f" ({each})" if len(values) > 1 else "")
