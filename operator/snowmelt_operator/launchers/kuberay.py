"""Runs each attempt as a RayJob of KubeRay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from snowmelt_operator.api.run import HANDED_OVER, Run, RunPhase
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.cluster import Cluster, ClusterRefusedError
from snowmelt_operator.launchers.base import Launch, LauncherUnavailableError, LaunchRefusedError, Wake
from snowmelt_operator.launchers.rayjob_status import RayJob
from snowmelt_operator.pods.observer import Pods
from snowmelt_operator.render.names import SELECTOR, rayjob_name
from snowmelt_operator.render.rayjob import (
    RAYJOB_API_VERSION,
    RAYJOB_KIND,
    WORKER_GROUP,
    RuntimeDefaults,
    render_rayjob,
    render_secret,
)

_INVALID = (400, 422)


@dataclass(frozen=True)
class _Known:
    """The newest that was heard of one RayJob."""

    namespace: str
    job_name: str
    version: int
    rayjob_uid: str
    run: Run
    refusals: tuple[Trouble, ...] = ()


class KubeRayLauncher:
    """Keeps the newest state of every RayJob of ours, fed by the watch, so that looking at a run costs no request."""

    def __init__(self, cluster: Cluster, defaults: RuntimeDefaults, *, wake: Wake) -> None:
        self._cluster = cluster
        self._defaults = defaults
        self._wake = wake
        self.pods = Pods(cluster, wake=wake)
        self._known: dict[str, dict[int, _Known]] = {}
        self._listed: list[tuple[str, int]] = []
        self._asked: dict[str, int] = {}
        """How many workers were asked for, by the RayJob's uid."""

    def name(self, job: ObjectMeta, attempt: int) -> str:
        return rayjob_name(job.name, attempt)

    def newest(self, job: ObjectMeta) -> int:
        return max(self._known.get(job.uid, ()), default=0)

    async def launch(self, launch: Launch) -> None:
        job, attempt = launch.job, launch.attempt
        try:
            # Applied, so that no right to read Secrets is needed; one of an earlier job of this name is overwritten.
            await self._cluster.apply(render_secret(job, attempt, launch.config, launch.token))
            await self._create(render_rayjob(job, attempt, self._defaults), job.metadata)
        except ClusterRefusedError as error:
            if error.status in _INVALID:
                raise LaunchRefusedError(str(error)) from error
            raise LauncherUnavailableError(str(error)) from error
        if attempt not in self._known.get(job.metadata.uid, ()):
            name = self.name(job.metadata, attempt)
            run = Run(name=name, attempt=attempt, phase=RunPhase.PENDING, message=HANDED_OVER)
            # Version 0: whatever the watch says of it is newer.
            created = _Known(job.metadata.namespace, job.metadata.name, 0, "", run)
            self._known.setdefault(job.metadata.uid, {})[attempt] = created

    async def find(self, job: ObjectMeta, attempt: int) -> Run | None:
        known = self._known.get(job.uid, {}).get(attempt)
        if known is not None:
            return known.run
        rayjob = await self._get(job, attempt)
        return None if rayjob is None else self._remember(rayjob).run

    async def troubles(self, job: ObjectMeta, attempt: int) -> tuple[Trouble, ...]:
        known = self._known.get(job.uid, {}).get(attempt)
        refusals = list(known.refusals) if known is not None else []
        if known is not None and known.run.awaits_submission and known.run.started_at is not None:
            refused = await self.pods.submitter_trouble(job.namespace, known.run.name, known.run.started_at)
            refusals += [refused] if refused is not None else []
        return (*refusals, *await self.pods.troubles(job.namespace, job.uid, attempt))

    async def last_words(self, job: ObjectMeta, attempt: int) -> LastWords | None:
        return await self.pods.last_words(job.namespace, job.uid, attempt)

    async def stop(self, job: ObjectMeta, attempt: int) -> None:
        name = self.name(job, attempt)
        known = self._known.get(job.uid, {}).get(attempt)
        rayjob_uid = known.rayjob_uid if known is not None else ""
        if not rayjob_uid:
            rayjob = await self._get(job, attempt)
            if rayjob is None:
                self._forget(job.uid, attempt)
                return
            rayjob_uid = rayjob.metadata.uid
        there = await self._cluster.delete(RAYJOB_API_VERSION, RAYJOB_KIND, job.namespace, name, uid=rayjob_uid)
        await self._cluster.delete("v1", "Secret", job.namespace, name)
        known = self._known.get(job.uid, {}).get(attempt)
        if not there:
            self._forget(job.uid, attempt)
        elif known is not None:
            self._known[job.uid][attempt] = replace(known, run=replace(known.run, stopping=True))

    async def ask_for_workers(self, job: ObjectMeta, attempt: int, count: int) -> None:
        """KubeRay submits a job once every pod is ready, so the rest is asked for once it runs (docs/design)."""
        known = self._known.get(job.uid, {}).get(attempt)
        if known is None or not known.run.ray_cluster or self._asked.get(known.rayjob_uid) == count:
            return
        group = "/spec/workerGroupSpecs/0"
        operations: list[dict[str, Any]] = [
            {"op": "test", "path": f"{group}/groupName", "value": WORKER_GROUP},
            {"op": "replace", "path": f"{group}/replicas", "value": count},
        ]
        cluster = known.run.ray_cluster
        try:
            there = await self._cluster.change(RAYJOB_API_VERSION, "RayCluster", job.namespace, cluster, operations)
        except ClusterRefusedError as error:
            raise LauncherUnavailableError(str(error)) from error
        if there:
            self._asked[known.rayjob_uid] = count

    async def refresh(self) -> None:
        before = [(uid, attempt) for uid, attempts in self._known.items() for attempt in attempts]
        listed = await self._cluster.list_objects(RAYJOB_API_VERSION, RAYJOB_KIND, label_selector=SELECTOR)
        rayjobs = [rayjob for document in listed if (rayjob := RayJob.parse(document)) is not None]
        for rayjob in rayjobs:
            self._remember(rayjob)
        self._listed = [(rayjob.job_uid, rayjob.attempt) for rayjob in rayjobs]
        for uid, attempt in set(before) - set(self._listed):
            self._forget(uid, attempt)
        await self.pods.refresh()

    async def sweep(self, living: set[str]) -> None:
        for uid, attempt in self._listed:
            known = self._known.get(uid, {}).get(attempt)
            if uid not in living and known is not None and not known.run.stopping:
                await self.stop(ObjectMeta(name=known.job_name, namespace=known.namespace, uid=uid), attempt)
        self._listed = []
        self.pods.keep(living)

    def heard(self, document: dict[str, Any], *, deleted: bool) -> None:
        """Take what the watch says of a RayJob, and wake its FineTuneJob when it is news."""
        rayjob = RayJob.parse(document)
        if rayjob is None:
            return
        before = self._known.get(rayjob.job_uid, {}).get(rayjob.attempt)
        if deleted:
            self._forget(rayjob.job_uid, rayjob.attempt)
            before = None
        after = self._remember(rayjob) if not deleted else None
        if before is None or after is None or (after.run, after.refusals) != (before.run, before.refusals):
            self._wake(rayjob.metadata.namespace, rayjob.job_name)

    def _remember(self, rayjob: RayJob) -> _Known:
        attempts = self._known.setdefault(rayjob.job_uid, {})
        # Kubernetes 1.35 made resource versions comparable (KEP-5504); etcd's always were.
        version = int(rayjob.metadata.resource_version)
        before = attempts.get(rayjob.attempt)
        if before is not None and before.version >= version:
            return before
        metadata = rayjob.metadata
        known = _Known(metadata.namespace, rayjob.job_name, version, metadata.uid, rayjob.run(), rayjob.refusals())
        attempts[rayjob.attempt] = known
        return known

    def _forget(self, uid: str, attempt: int) -> None:
        attempts = self._known.get(uid, {})
        known = attempts.pop(attempt, None)
        if known is not None:
            self._asked.pop(known.rayjob_uid, None)
        if not attempts:
            self._known.pop(uid, None)

    async def _get(self, job: ObjectMeta, attempt: int) -> RayJob | None:
        """The RayJob of this attempt; one of an earlier FineTuneJob of the same name is not it."""
        name = self.name(job, attempt)
        document = await self._cluster.get(RAYJOB_API_VERSION, RAYJOB_KIND, job.namespace, name)
        rayjob = RayJob.parse(document) if document is not None else None
        return rayjob if rayjob is not None and rayjob.job_uid == job.uid else None

    async def _create(self, rayjob: dict[str, Any], job: ObjectMeta) -> None:
        """Create; what exists already is fine when it is this job's, and in the way when it is not."""
        if await self._cluster.create(rayjob):
            return
        name = rayjob["metadata"]["name"]
        document = await self._cluster.get(RAYJOB_API_VERSION, RAYJOB_KIND, job.namespace, name)
        if document is None:
            raise LauncherUnavailableError(f"RayJob {name} was deleted this moment; creating it again")
        existing = RayJob.parse(document)
        if existing is None:
            raise LauncherUnavailableError(f"RayJob {job.namespace}/{name} is not Snowmelt's: delete or rename it")
        if existing.job_uid == job.uid and existing.metadata.deletion_timestamp is None:
            return
        await self._cluster.delete(RAYJOB_API_VERSION, RAYJOB_KIND, job.namespace, name, uid=existing.metadata.uid)
        raise LauncherUnavailableError(f"RayJob {name} of an earlier FineTuneJob of this name is still being deleted")
