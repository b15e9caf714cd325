"""Names and labels of what belongs to a FineTuneJob. They follow from job and attempt: a replay finds the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snowmelt_operator.api.v1alpha1 import GROUP, ObjectMeta

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "snowmelt"
JOB_LABEL = f"{GROUP}/job"
UID_LABEL = f"{GROUP}/uid"
ATTEMPT_LABEL = f"{GROUP}/attempt"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Matches everything that the operator makes."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def rayjob_name(job_name: str, attempt: int) -> str:
    """`shoes-a1`; at most 47 characters, which is KubeRay's bound, for job names of at most 40."""
    return f"{job_name}-a{attempt}"


def submission_id(job: ObjectMeta, attempt: int) -> str:
    """A Ray submission's id: it tells clusters' jobs of the same name apart by the uid."""
    return f"{job.namespace}--{job.name}-a{attempt}-{job.uid[:8]}"


@dataclass(frozen=True)
class Submission:
    """One attempt in a Ray cluster. It travels as the submission's metadata: an id cannot be taken apart for sure."""

    namespace: str
    name: str
    attempt: int
    uid: str

    @classmethod
    def of(cls, job: ObjectMeta, attempt: int) -> Submission:
        return cls(job.namespace, job.name, attempt, job.uid)

    @property
    def job(self) -> ObjectMeta:
        """What the submission tells of its job's metadata."""
        return ObjectMeta(name=self.name, namespace=self.namespace, uid=self.uid)

    @property
    def metadata(self) -> dict[str, str]:
        """Ray's metadata, which are strings."""
        return labels(self.job, self.attempt) | {_NAMESPACE_KEY: self.namespace}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Submission | None:
        """What `metadata` says; None for a submission that is not ours."""
        try:
            return cls(metadata[_NAMESPACE_KEY], metadata[JOB_LABEL], int(metadata[ATTEMPT_LABEL]), metadata[UID_LABEL])
        except (KeyError, ValueError):
            return None


_NAMESPACE_KEY = f"{GROUP}/namespace"


def labels(job: ObjectMeta, attempt: int) -> dict[str, str]:
    """Labels of every object and pod of one attempt."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: job.name,
        UID_LABEL: job.uid,
        ATTEMPT_LABEL: str(attempt),
    }
