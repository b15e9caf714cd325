"""What is: a job and what runs for it."""

from __future__ import annotations

from datetime import UTC, datetime

from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.decide import Observed
from snowmelt_operator.launchers.base import Launcher, LauncherUnavailableError


def clock() -> datetime:
    """The time in whole seconds, which is what Kubernetes' timestamps hold."""
    return datetime.now(UTC).replace(microsecond=0)


async def observe(job: StoredJob, launcher: Launcher, now: datetime) -> Observed:
    """All that `decide` needs. A launcher that cannot be asked is an observation too."""
    seen = Observed(job=job, now=now, name_attempt=launcher.name)
    metadata, current = job.metadata, job.status.attempts.current
    try:
        run = await launcher.find(metadata, current) if current else None
        newest = launcher.newest(metadata)
        stray = await launcher.find(metadata, newest) if newest > current else None
    except LauncherUnavailableError as error:
        return Observed(job=job, now=now, obstacle=str(error), name_attempt=launcher.name)
    return Observed(job=job, now=now, run=run, stray=stray, name_attempt=seen.name_attempt)
