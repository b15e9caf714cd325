"""A cluster and a launcher whose faults can be scripted; what really happens is tested against the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from snowmelt_operator.act import Means
from snowmelt_operator.api.run import HANDED_OVER, Run, RunPhase
from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.cluster import ClusterConflictError, Warned
from snowmelt_operator.events import Event
from snowmelt_operator.launchers.base import Launch
from snowmelt_operator.progress.tokens import SigningKey
from snowmelt_operator.render.names import rayjob_name
from snowmelt_operator.store import JobStore


class ScriptedCluster:
    """Holds FineTuneJobs; `fails` names methods and what they raise, once."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.fails: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.events: list[Event] = []

    def put(self, document: dict[str, Any]) -> StoredJob:
        metadata = document["metadata"]
        self.documents[metadata["namespace"], metadata["name"]] = document
        job = read_job(document)
        self.store.put(job)
        return job

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if method in self.fails:
            raise self.fails.pop(method)

    async def get_job(self, namespace: str, name: str) -> StoredJob | None:
        self._called("get_job")
        document = self.documents.get((namespace, name))
        return None if document is None else self.put(document)

    async def list_jobs(self) -> list[StoredJob]:
        self._called("list_jobs")
        return [read_job(document) for document in self.documents.values()]

    async def apply_status(self, job: ObjectMeta, status: dict[str, Any], *, field_manager: str = "snowmelt") -> None:
        self._called("apply_status")
        before = self.documents[job.namespace, job.name]
        if before["metadata"]["resourceVersion"] != job.resource_version:
            raise ClusterConflictError("the object has been modified", status=409, reason="Conflict")
        version = str(int(before["metadata"]["resourceVersion"]) + 1)
        self.put(
            before
            | {"status": before["status"] | status, "metadata": before["metadata"] | {"resourceVersion": version}}
        )

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, *, uid: str | None = None) -> bool:
        self._called("delete")
        return self.documents.pop((namespace, name), None) is not None

    async def watch_refused(self, api_version: str, kind: str, *, label_selector: str) -> str | None:
        raise NotImplementedError

    async def warnings_about(self, namespace: str, regarding: Mapping[str, str]) -> list[Warned]:
        raise NotImplementedError

    async def log_tail(self, namespace: str, pod: str, container: str, *, previous: bool) -> bytes:
        raise NotImplementedError

    async def record_event(self, event: Event, now: datetime) -> None:
        self._called("record_event")
        self.events.append(event)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        raise NotImplementedError

    async def list_objects(self, api_version: str, kind: str, *, label_selector: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    async def apply(self, manifest: dict[str, Any], *, field_manager: str = "snowmelt") -> None:
        raise NotImplementedError

    async def create(self, manifest: dict[str, Any]) -> bool:
        raise NotImplementedError


class ScriptedLauncher:
    """Holds runs by attempt's name; `fails` as above."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, int], Run] = {}
        self.fails: dict[str, Exception] = {}
        self.trouble: tuple[Trouble, ...] = ()
        self.words: LastWords | None = None
        self.read = 0
        """How often the end of a log was asked for."""
        self.launched: list[Launch] = []
        self.stopped: list[str] = []
        self.swept: list[set[str]] = []
        self.asked: list[tuple[str, int]] = []

    def _called(self, method: str) -> None:
        if method in self.fails:
            raise self.fails.pop(method)

    def name(self, job: ObjectMeta, attempt: int) -> str:
        return rayjob_name(job.name, attempt)

    def newest(self, job: ObjectMeta) -> int:
        return max((attempt for uid, attempt in self.runs if uid == job.uid), default=0)

    async def launch(self, launch: Launch) -> None:
        self._called("launch")
        self.launched.append(launch)
        name = self.name(launch.job.metadata, launch.attempt)
        run = Run(name=name, attempt=launch.attempt, phase=RunPhase.PENDING, message=HANDED_OVER)
        self.runs.setdefault((launch.job.metadata.uid, launch.attempt), run)

    async def find(self, job: ObjectMeta, attempt: int) -> Run | None:
        self._called("find")
        return self.runs.get((job.uid, attempt))

    async def troubles(self, job: ObjectMeta, attempt: int) -> tuple[Trouble, ...]:
        self._called("troubles")
        return self.trouble

    async def last_words(self, job: ObjectMeta, attempt: int) -> LastWords | None:
        self._called("last_words")
        self.read += 1
        return self.words

    async def stop(self, job: ObjectMeta, attempt: int) -> None:
        self._called("stop")
        self.stopped.append(self.name(job, attempt))
        if (run := self.runs.get((job.uid, attempt))) is not None:
            self.runs[job.uid, attempt] = replace(run, phase=RunPhase.STOPPED)

    async def ask_for_workers(self, job: ObjectMeta, attempt: int, count: int) -> None:
        self._called("ask_for_workers")
        self.asked.append((self.name(job, attempt), count))

    async def refresh(self) -> None:
        self._called("refresh")

    async def sweep(self, living: set[str]) -> None:
        self._called("sweep")
        self.swept.append(living)


def means(cluster: ScriptedCluster, launcher: ScriptedLauncher) -> Means:
    return Means(
        cluster=cluster,
        launcher=launcher,
        key=SigningKey(b"k" * 32),
        progress_url="http://progress.example",
        token_file=None,
        volumes_root="/mnt/snowmelt",
    )
