"""The newest that was heard of every FineTuneJob, so that looking at a job costs no request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from snowmelt_operator.api.conditions import Phase
from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.v1alpha1 import ObjectMeta


@dataclass(frozen=True, order=True)
class Key:
    """A FineTuneJob by namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Gone:
    """A job that was deleted, until whatever ran for it was stopped."""

    metadata: ObjectMeta
    attempt: int


class JobStore:
    """Fed by the watch, by lists and by the answers to our own writes; the greatest resourceVersion wins."""

    def __init__(
        self,
        *,
        on_put: Callable[[str, Phase | None], None] = lambda _uid, _phase: None,
        on_remove: Callable[[str], None] = lambda _uid: None,
    ) -> None:
        """`on_put` and `on_remove` are told of every change, by uid."""
        self._jobs: dict[Key, StoredJob] = {}
        self._gone: dict[Key, list[Gone]] = {}
        self._on_put = on_put
        self._on_remove = on_remove

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._jobs))

    def get(self, key: Key) -> StoredJob | None:
        return self._jobs.get(key)

    def read(self, document: dict[str, Any]) -> StoredJob:
        """A job from the API server; what is known in this very version is not parsed again."""
        metadata = document["metadata"]
        known = self._jobs.get(Key(metadata["namespace"], metadata["name"]))
        if known is None or _identity(known.metadata) != (metadata["uid"], metadata["resourceVersion"]):
            return read_job(document)
        return known

    def put(self, job: StoredJob) -> bool:
        """Take a job; False when it is no news."""
        key = Key(job.metadata.namespace, job.metadata.name)
        before = self._jobs.get(key)
        if before is not None and _version(before) >= _version(job):
            return False
        if before is not None and before.metadata.uid != job.metadata.uid:
            self._bury(key, before)
        self._jobs[key] = job
        self._on_put(job.metadata.uid, job.status.phase)
        return True

    def remove(self, key: Key, uid: str) -> bool:
        """Take note that the job of this uid is gone; False when that is no news."""
        job = self._jobs.get(key)
        if job is None or job.metadata.uid != uid:
            return False
        del self._jobs[key]
        self._bury(key, job)
        return True

    def replace(self, before: set[Key], listed: list[StoredJob]) -> set[Key]:
        """Take a whole list: what of `before`, the keys known when it was asked for, is not in it is gone.

        Returns:
            The keys of the jobs that are gone.
        """
        there = {Key(job.metadata.namespace, job.metadata.name) for job in listed}
        for job in listed:
            self.put(job)
        vanished = before - there
        for key in vanished:
            if (known := self._jobs.get(key)) is not None:
                self.remove(key, known.metadata.uid)
        return vanished

    def gone(self, key: Key) -> tuple[Gone, ...]:
        """The deleted jobs of this name whose attempts are not known to be stopped."""
        return tuple(self._gone.get(key, ()))

    def settled(self, key: Key, gone: Gone) -> None:
        """Nothing runs for that deleted job any more."""
        self._gone[key].remove(gone)
        if not self._gone[key]:
            del self._gone[key]

    def _bury(self, key: Key, job: StoredJob) -> None:
        self._gone.setdefault(key, []).append(Gone(job.metadata, job.status.attempts.current))
        self._on_remove(job.metadata.uid)


def _identity(metadata: ObjectMeta) -> tuple[str, str]:
    return metadata.uid, metadata.resource_version


def _version(job: StoredJob) -> int:
    """Kubernetes 1.35 made resource versions comparable (KEP-5504); etcd's always were."""
    return int(job.metadata.resource_version or 0)
