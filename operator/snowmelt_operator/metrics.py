"""Prometheus metrics of the operator, in a registry of their own."""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.process_collector import ProcessCollector

from snowmelt_operator.api.conditions import Phase

_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What the parts of the operator count. Times in seconds; label values come from closed lists, never from users."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("snowmelt_build", "Version of the operator and of its Python.", registry=self.registry)
        build.info({"version": version("snowmelt"), "python": platform.python_version()})
        self._define_work()
        self._define_traffic()
        self._phases: dict[str, str] = {}

    def _define_work(self) -> None:
        self._reconciles = Histogram(
            "snowmelt_reconcile_duration_seconds",
            "Time to reconcile one job; the _count is the number of reconciles.",
            ["result"],
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self._queue_depth = Gauge(
            "snowmelt_queue_depth", "Jobs that wait to be reconciled now.", registry=self.registry
        )
        self._jobs = Gauge("snowmelt_jobs", "FineTuneJobs by phase.", ["phase"], registry=self.registry)
        for phase in Phase:
            self._jobs.labels(phase)
        self._failed_attempts = Counter(
            "snowmelt_attempts_failed", "Attempts that failed, by reason.", ["reason"], registry=self.registry
        )

    def _define_traffic(self) -> None:
        self._progress = Counter(
            "snowmelt_progress_reports",
            "Answers of the progress endpoint, by HTTP code.",
            ["code"],
            registry=self.registry,
        )
        self._requests = Counter(
            "snowmelt_api_requests",
            "Requests to the Kubernetes API, watches not counted.",
            ["verb", "resource"],
            registry=self.registry,
        )

    def reconciled(self, seconds: float, *, failed: bool) -> None:
        """One job was reconciled."""
        self._reconciles.labels("error" if failed else "success").observe(seconds)

    def queue_depth(self, depth: int) -> None:
        """So many jobs wait now."""
        self._queue_depth.set(depth)

    def saw_job(self, uid: str, phase: Phase | None) -> None:
        """A job is in this phase now; one without a phase counts as Pending."""
        phase = phase or Phase.PENDING
        before = self._phases.get(uid)
        if before == phase:
            return
        if before is not None:
            self._jobs.labels(before).dec()
        self._phases[uid] = phase
        self._jobs.labels(phase).inc()

    def lost_job(self, uid: str) -> None:
        """A job was deleted."""
        phase = self._phases.pop(uid, None)
        if phase is not None:
            self._jobs.labels(phase).dec()

    def attempt_failed(self, reason: str) -> None:
        """An attempt failed for one of the documented reasons."""
        self._failed_attempts.labels(reason).inc()

    def progress_answered(self, code: int) -> None:
        """The progress endpoint gave an answer."""
        self._progress.labels(str(code)).inc()

    def api_request(self, verb: str, resource: str) -> None:
        """A request went to the Kubernetes API."""
        self._requests.labels(verb, resource).inc()

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
