"""Names and labels of what belongs to a FineTuneJob. They follow from job and attempt: a replay finds the same."""

from __future__ import annotations

import re
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

_SUBMISSION_ID = re.compile(r"^(?P<namespace>[^/]+?)--(?P<name>[^/]+)-a(?P<attempt>[0-9]+)-(?P<uid>[0-9a-f]{8})$")


def rayjob_name(job_name: str, attempt: int) -> str:
    """`shoes-a1`; at most 47 characters, which is KubeRay's bound, for job names of at most 40."""
    return f"{job_name}-a{attempt}"


def submission_id(job: ObjectMeta, attempt: int) -> str:
    """A Ray submission's id: it tells clusters' jobs of the same name apart by the uid."""
    return f"{job.namespace}--{job.name}-a{attempt}-{job.uid[:8]}"


@dataclass(frozen=True)
class Submission:
    """What a submission's id says; `uid` is the first eight characters of the job's."""

    namespace: str
    name: str
    attempt: int
    uid: str

    @classmethod
    def of(cls, job: ObjectMeta, attempt: int) -> Submission:
        return cls(job.namespace, job.name, attempt, job.uid[:8])

    def belongs_to(self, job: ObjectMeta) -> bool:
        return (self.namespace, self.name, self.uid) == (job.namespace, job.name, job.uid[:8])

    def job(self) -> ObjectMeta:
        """The job's metadata, as far as an id tells them."""
        return ObjectMeta(name=self.name, namespace=self.namespace, uid=self.uid)


def parse_submission_id(text: str) -> Submission | None:
    """What `submission_id` put together; None for a submission that is not ours."""
    match = _SUBMISSION_ID.match(text)
    if match is None:
        return None
    return Submission(match["namespace"], match["name"], int(match["attempt"]), match["uid"])


def labels(job: ObjectMeta, attempt: int) -> dict[str, str]:
    """Labels of every object and pod of one attempt."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        JOB_LABEL: job.name,
        UID_LABEL: job.uid,
        ATTEMPT_LABEL: str(attempt),
    }
