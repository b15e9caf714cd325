"""Runs each attempt as a job of an existing Ray cluster, by the Ray Jobs REST API (Ray 2.60, dashboard/modules/job)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from snowmelt_operator.api.run import Run, RunPhase
from snowmelt_operator.api.trouble import LastWords, Trouble
from snowmelt_operator.api.v1alpha1 import FineTuneJob, ObjectMeta
from snowmelt_operator.launchers.base import Launch, LauncherUnavailableError, LaunchRefusedError, Wake
from snowmelt_operator.render.names import Submission, submission_id
from snowmelt_trainer.contract.run import CONFIG_ENV, TOKEN_ENV

ENTRYPOINT = "python -m snowmelt_trainer"
MAX_BODY = 64 * 1024 * 1024
"""Largest answer of Ray that is read, in bytes."""
_PHASES = {
    "PENDING": RunPhase.STARTING,
    "RUNNING": RunPhase.RUNNING,
    "SUCCEEDED": RunPhase.SUCCEEDED,
    "FAILED": RunPhase.FAILED,
    "STOPPED": RunPhase.STOPPED,
}

log = logging.getLogger(__name__)


class _JobDetails(BaseModel):
    """One row of GET /api/jobs/."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    submission_id: str | None = None
    status: str
    message: str | None = None
    error_type: str | None = None
    metadata: dict[str, str] | None = None
    start_time: int | None = None
    """Milliseconds since 1970."""

    def run(self, attempt: int) -> Run:
        started = datetime.fromtimestamp(self.start_time / 1000, UTC) if self.start_time else None
        phase = _PHASES.get(self.status, RunPhase.PENDING)
        # Ray appends the log's tail, which is a trace more often than not: that stays in the log.
        message = (self.message or "").partition(", last available logs")[0].partition("\n")[0]
        return Run(
            name=self.submission_id or "",
            attempt=attempt,
            phase=phase,
            reason=self.error_type or "",
            message=message if phase is RunPhase.FAILED else "",
            cluster_ready=True,
            started_at=started,
        )


_ROWS = TypeAdapter(list[_JobDetails])


class RayLauncher:
    """Asks Ray for all its jobs every few seconds while one of ours is active, and not at all otherwise."""

    def __init__(
        self, session: aiohttp.ClientSession, address: str, *, wake: Wake, poll_seconds: float, token: str | None = None
    ) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._runs: dict[Submission, Run] = {}
        self._listed: list[Submission] = []
        self._active = asyncio.Event()
        self._away: str | None = None

    def name(self, job: ObjectMeta, attempt: int) -> str:
        return submission_id(job, attempt)

    def newest(self, job: ObjectMeta) -> int:
        return max((known.attempt for known in self._runs if known.uid == job.uid), default=0)

    async def launch(self, launch: Launch) -> None:
        name = self.name(launch.job.metadata, launch.attempt)
        environment = _environment(launch.job) | {
            CONFIG_ENV: launch.config.model_dump_json(by_alias=True, exclude_none=True),
            TOKEN_ENV: launch.token,
        }
        submission = Submission.of(launch.job.metadata, launch.attempt)
        body = {
            "entrypoint": ENTRYPOINT,
            "submission_id": name,
            "runtime_env": {"env_vars": environment},
            "metadata": submission.metadata,
        }
        status, text = await self._request("POST", "/api/jobs/", body)
        if status >= 400 and "already exists" not in text:
            problem = f"Ray answered {status}: {_last_line(text)}"
            raise LaunchRefusedError(problem) if status == 400 else LauncherUnavailableError(problem)
        run = Run(name=name, attempt=launch.attempt, phase=RunPhase.PENDING, cluster_ready=True)
        self._runs.setdefault(submission, run)
        self._active.set()

    async def find(self, job: ObjectMeta, attempt: int) -> Run | None:
        known = self._runs.get(Submission.of(job, attempt))
        if known is not None and not known.is_active:
            return known
        if self._away is not None:
            raise LauncherUnavailableError(self._away)
        return known or await self._get(job, attempt)

    async def troubles(self, job: ObjectMeta, attempt: int) -> tuple[Trouble, ...]:  # noqa: ARG002  no pods of ours
        return ()

    async def last_words(self, job: ObjectMeta, attempt: int) -> LastWords | None:  # noqa: ARG002  Ray keeps the log
        return None

    async def stop(self, job: ObjectMeta, attempt: int) -> None:
        submission = Submission.of(job, attempt)
        status, text = await self._request("POST", f"/api/jobs/{self.name(job, attempt)}/stop")
        if status >= 400 and status != 404:
            raise LauncherUnavailableError(f"Ray answered {status}: {_last_line(text)}")
        if status == 404:
            self._runs.pop(submission, None)
        elif submission in self._runs:
            self._runs[submission] = replace(self._runs[submission], stopping=True)
            self._active.set()

    async def ask_for_workers(self, job: ObjectMeta, attempt: int, count: int) -> None:
        """Nothing to do: Ray Train itself tells Ray's autoscaler, where there is one, what it could use."""

    async def refresh(self) -> None:
        """One request for all jobs; wakes the FineTuneJobs of those that changed."""
        before = dict(self._runs)
        status, text = await self._request("GET", "/api/jobs/")
        if status >= 400:
            raise LauncherUnavailableError(f"Ray answered {status}: {_last_line(text)}")
        listed = _parse(text)
        for submission, run in listed.items():
            was = before.get(submission)
            stopping = was is not None and was.stopping and run.is_active
            self._runs[submission] = replace(run, stopping=stopping)
        for submission in before.keys() - listed.keys():
            self._runs.pop(submission, None)
        self._listed = [submission for submission, run in listed.items() if run.is_active]
        # Not from the list alone: an attempt may have been launched while it was on its way.
        if not any(run.is_active for run in self._runs.values()):
            self._active.clear()
        else:
            self._active.set()
        for submission in before.keys() | listed.keys():
            if before.get(submission) != self._runs.get(submission):
                self._wake(submission.namespace, submission.name)

    async def sweep(self, living: set[str]) -> None:
        for submission in self._listed:
            if submission.uid not in living:
                await self.stop(submission.job, submission.attempt)

    async def poll(self) -> None:
        """Refresh for ever, while anything is active."""
        while True:
            await self._active.wait()
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except LauncherUnavailableError as error:
                log.warning("%s", error)

    async def _get(self, job: ObjectMeta, attempt: int) -> Run | None:
        status, text = await self._request("GET", f"/api/jobs/{self.name(job, attempt)}")
        if status == 404:
            return None
        if status >= 400:
            raise LauncherUnavailableError(f"Ray answered {status}: {_last_line(text)}")
        run = _JobDetails.model_validate_json(text).run(attempt)
        self._runs[Submission.of(job, attempt)] = run
        if run.is_active:
            self._active.set()
        return run

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        try:
            async with self._session.request(
                method, self._address + path, json=body, headers=self._headers
            ) as response:
                content = await response.content.read(MAX_BODY)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._gone_away(f"Ray cannot be reached at {self._address}: {str(error) or type(error).__name__}")
            raise LauncherUnavailableError(self._away) from error
        self._away = None
        return response.status, content.decode(errors="replace")

    def _gone_away(self, problem: str) -> None:
        news, self._away = self._away is None, problem
        for submission, run in self._runs.items():
            if news and run.is_active:
                self._wake(submission.namespace, submission.name)


def _environment(job: FineTuneJob) -> dict[str, str]:
    """The variables of spec.runtime.env.

    Raises:
        LaunchRefusedError: for one that comes from a Secret or ConfigMap, which Ray outside Kubernetes cannot read.
    """
    for index, variable in enumerate(job.spec.runtime.env):
        if variable.value_from is not None:
            raise LaunchRefusedError(
                f"spec.runtime.env[{index}].valueFrom ({variable.name}): a Ray cluster outside Kubernetes cannot read"
                " Secrets and ConfigMaps: give a value, or set the variable where Ray is started"
            )
    return {variable.name: variable.value or "" for variable in job.spec.runtime.env}


def _parse(text: str) -> dict[Submission, Run]:
    try:
        rows = _ROWS.validate_json(text)
    except ValidationError as error:
        raise LauncherUnavailableError(f"Ray's list of jobs cannot be read: {error.errors()[0]['msg']}") from error
    submissions = [(Submission.from_metadata(row.metadata or {}), row) for row in rows]
    return {submission: row.run(submission.attempt) for submission, row in submissions if submission is not None}


def _last_line(text: str) -> str:
    """Ray answers with traces; their last line is the message."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:1000] if lines else "nothing"
