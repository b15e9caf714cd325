"""What is: a job and what runs for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from snowmelt_operator.api.policy import Policy
from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.decide import Observed
from snowmelt_operator.decide.state import is_finished
from snowmelt_operator.launchers.base import Launcher, LauncherUnavailableError


def clock() -> datetime:
    """The time in whole seconds, which is what Kubernetes' timestamps hold."""
    return datetime.now(UTC).replace(microsecond=0)


async def observe(job: StoredJob, launcher: Launcher, now: datetime, policy: Policy) -> Observed:
    """All that `decide` needs. A launcher that cannot be asked is an observation too."""
    seen = Observed(job=job, now=now, name_attempt=launcher.name, policy=policy)
    metadata, current = job.metadata, job.status.attempts.current
    try:
        run = await launcher.find(metadata, current) if current else None
        newest = launcher.newest(metadata)
        stray = await launcher.find(metadata, newest) if newest > current else None
        troubles = await launcher.troubles(metadata, current) if run is not None and not is_finished(job.status) else ()
    except LauncherUnavailableError as error:
        return replace(seen, obstacle=str(error))
    return replace(seen, run=run, stray=stray, troubles=troubles)
