"""The Ray launcher against an HTTP server that misbehaves as Ray can; tests/controlplane runs it against a real Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.launchers.base import Launch, LauncherUnavailableError, LaunchRefusedError
from snowmelt_operator.launchers.ray import RayLauncher
from snowmelt_operator.render.config import run_config
from snowmelt_operator.render.names import Submission, submission_id
from snowmelt_trainer.contract.run import JobIdentity
from tests.unit.operator_core.building import UID, job

SUBMISSION = submission_id(job().metadata, 1)


class FakeRay:
    """Ray Jobs, as dashboard/modules/job/job_head.py answers."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.answer: tuple[int, str] | None = None

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/api/jobs/{rest:.*}", self.handle)
        return application

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path}")
        if self.answer is not None:
            return web.Response(status=self.answer[0], text=self.answer[1])
        identity, _, verb = request.match_info["rest"].partition("/")
        if request.method == "POST" and not identity:
            return self.submit(await request.json())
        if not identity:
            return web.json_response(list(self.jobs.values()))
        if identity not in self.jobs:
            return web.Response(status=404, text=f"Job {identity} does not exist")
        if verb == "stop":
            self.jobs[identity]["status"] = "STOPPED"
            return web.json_response({"stopped": True})
        return web.json_response(self.jobs[identity])

    def submit(self, body: dict[str, Any]) -> web.Response:
        identity = body["submission_id"]
        if identity in self.jobs:
            trace = f"Traceback (most recent call last):\n …\nValueError: Job {identity} already exists."
            return web.Response(status=500, text=trace)
        self.jobs[identity] = {"submission_id": identity, "status": "PENDING", **body}
        return web.json_response({"submission_id": identity})


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
async def launcher(ray: FakeRay, woken: list[str]) -> AsyncIterator[RayLauncher]:
    runner = web.AppRunner(ray.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        yield RayLauncher(session, address, wake=lambda _, name: woken.append(name), poll_seconds=0.01)
    await runner.cleanup()


def launch(**spec: Any) -> Launch:
    finetunejob = job(**spec)
    identity = JobIdentity(namespace="team", name="shoes", uid=UID)
    config = run_config(finetunejob.spec, identity, progress=None, volumes_root="/v")
    return Launch(job=finetunejob, attempt=1, config=config, token="the token")


async def test_the_configuration_and_the_token_travel_in_the_environment(launcher: RayLauncher, ray: FakeRay) -> None:
    await launcher.launch(launch(runtime={"env": [{"name": "HF_HOME", "value": "/h"}]}))
    environment = ray.jobs[SUBMISSION]["runtime_env"]["env_vars"]
    assert environment["SNOWMELT_PROGRESS_TOKEN"] == "the token"
    assert '"uid":"' + UID in environment["SNOWMELT_RUN_CONFIG"]
    assert environment["HF_HOME"] == "/h"


async def test_launching_what_was_launched_already_is_fine(launcher: RayLauncher, ray: FakeRay) -> None:
    await launcher.launch(launch())
    await launcher.launch(launch())
    assert len(ray.jobs) == 1


async def test_a_secret_that_ray_cannot_read_is_refused_by_field(launcher: RayLauncher) -> None:
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    with pytest.raises(LaunchRefusedError, match=r"spec\.runtime\.env\[0\]\.valueFrom \(KEY\)"):
        await launcher.launch(launch(runtime={"env": [secret]}))


@pytest.mark.parametrize(("status", "error"), [(400, LaunchRefusedError), (500, LauncherUnavailableError)])
async def test_of_rays_traces_only_the_last_line_is_told(
    launcher: RayLauncher, ray: FakeRay, status: int, error: type[Exception]
) -> None:
    ray.answer = (
        status,
        'Traceback (most recent call last):\n  File "x.py", line 1\nTypeError: runtime_env is wrong\n',
    )
    with pytest.raises(error, match=rf"^Ray answered {status}: TypeError: runtime_env is wrong$"):
        await launcher.launch(launch())


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("PENDING", RunPhase.STARTING),
        ("RUNNING", RunPhase.RUNNING),
        ("SUCCEEDED", RunPhase.SUCCEEDED),
        ("FAILED", RunPhase.FAILED),
        ("STOPPED", RunPhase.STOPPED),
        ("SOMETHING_NEW", RunPhase.PENDING),
    ],
)
async def test_status(launcher: RayLauncher, ray: FakeRay, status: str, phase: RunPhase) -> None:
    await launcher.launch(launch())
    ray.jobs[SUBMISSION]["status"] = status
    await launcher.refresh()
    found = await launcher.find(job().metadata, 1)
    assert found is not None
    assert found.phase is phase


async def test_the_tail_of_the_log_is_not_the_message(launcher: RayLauncher, ray: FakeRay) -> None:
    await launcher.launch(launch())
    message = (
        "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\nTraceback"
    )
    ray.jobs[SUBMISSION] |= {"status": "FAILED", "message": message, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR"}
    await launcher.refresh()
    found = await launcher.find(job().metadata, 1)
    assert found is not None
    assert found.message == "Job entrypoint command failed with exit code 1"


async def test_a_job_that_ray_has_forgotten_is_not_there(launcher: RayLauncher, ray: FakeRay) -> None:
    await launcher.launch(launch())
    ray.jobs.clear()  # Ray was started anew
    await launcher.refresh()
    assert await launcher.find(job().metadata, 1) is None


async def test_an_unreachable_ray_is_said_to_be_so_and_is_no_vanished_run(ray: FakeRay, woken: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        away = RayLauncher(session, "http://127.0.0.1:9", wake=lambda _, name: woken.append(name), poll_seconds=1)
        with pytest.raises(LauncherUnavailableError, match=r"Ray cannot be reached at http://127\.0\.0\.1:9"):
            await away.find(job().metadata, 1)


async def test_something_else_than_ray_is_not_believed(launcher: RayLauncher, ray: FakeRay) -> None:
    ray.answer = (200, "<html>a proxy's page</html>")
    with pytest.raises(LauncherUnavailableError, match="cannot be read"):
        await launcher.refresh()


async def test_stopping_is_idempotent(launcher: RayLauncher, ray: FakeRay) -> None:
    await launcher.stop(job().metadata, 1)
    await launcher.launch(launch())
    await launcher.stop(job().metadata, 1)
    assert ray.jobs[SUBMISSION]["status"] == "STOPPED"
    stopping = await launcher.find(job().metadata, 1)
    assert stopping is not None
    assert stopping.stopping


async def test_a_new_operator_finds_the_attempts_of_the_old_one(launcher: RayLauncher, ray: FakeRay) -> None:
    metadata = Submission.of(job().metadata, 3).metadata
    ray.jobs["x"] = {"submission_id": submission_id(job().metadata, 3), "status": "RUNNING", "metadata": metadata}
    ray.jobs["theirs"] = {"submission_id": "raysubmit_1", "status": "RUNNING", "metadata": None}
    await launcher.refresh()
    assert launcher.newest(job().metadata) == 3


async def test_what_runs_for_a_job_that_is_gone_is_swept_and_strangers_are_not(
    launcher: RayLauncher, ray: FakeRay
) -> None:
    await launcher.launch(launch())
    ray.jobs["theirs"] = {"submission_id": "theirs", "status": "RUNNING", "metadata": {}}
    await launcher.refresh()
    await launcher.sweep({UID})
    assert ray.jobs[SUBMISSION]["status"] == "PENDING"
    await launcher.refresh()
    await launcher.sweep({"another"})
    assert (ray.jobs[SUBMISSION]["status"], ray.jobs["theirs"]["status"]) == ("STOPPED", "RUNNING")


async def test_ray_is_polled_while_something_runs_and_left_alone_otherwise(
    launcher: RayLauncher, ray: FakeRay, woken: list[str]
) -> None:
    polling = asyncio.create_task(launcher.poll())
    await asyncio.sleep(0.05)
    assert ray.requests == []
    await launcher.launch(launch())
    async with asyncio.timeout(10):
        while ray.requests.count("GET /api/jobs/") < 3:
            await asyncio.sleep(0.01)
        ray.jobs[SUBMISSION]["status"] = "SUCCEEDED"
        while (await launcher.find(job().metadata, 1)).phase is not RunPhase.SUCCEEDED:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    ray.requests.clear()
    await asyncio.sleep(0.1)
    polling.cancel()
    assert ray.requests == []
    assert woken[-1] == "shoes"
