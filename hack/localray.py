"""A Ray of our own on loopback, beside any other Ray of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hack.kube import marked
from hack.kube.controlplane import ControlPlaneError, eventually, write_secret
from hack.kube.processes import Service, Startable, free_port

MARK = "LOCAL_RAY_OF_SNOWMELT"
"""Environment variable that everything of one Ray inherits, jobs and workers included."""
OBJECT_STORE_BYTES = 200 * 1024 * 1024
READY_WITHIN_S = 90.0


class LocalRay(Startable):
    """`ray start --head` with ports and folders of its own; `dashboard_url` is where its Jobs API listens.

    The API wants the bearer token in `token_file`.

    Raises:
        ControlPlaneError: from `start`, when Ray ends or its Jobs API does not answer within 90 s.
    """

    def __init__(self, log: Path, *, cpus: int, env: Mapping[str, str] | None = None) -> None:
        # Ray's sockets lie under here, and a socket's path may have 107 characters: too few for a deep checkout.
        self._folder = Path(tempfile.mkdtemp(prefix="snowmelt-ray-"))
        port = free_port()
        self.dashboard_url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", "--port=0", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}",
            f"--ray-client-server-port={free_port()}", f"--num-cpus={cpus}", "--num-gpus=0",
            f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={self._folder}",
        ]  # fmt: skip
        # Anyone on this machine could otherwise submit jobs, that is, run commands as us.
        self.token_file = write_secret(self._folder / "token", secrets.token_urlsafe(32))
        authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        # Jobs start `python`, which must be this one.
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        ours = {"RAY_USAGE_STATS_ENABLED": "0", MARK: str(self._folder)}
        environment = os.environ | path | authentication | dict(env or {}) | ours
        self._service = Service("ray", command, log, env=environment)

    @property
    def logs(self) -> Path:
        """Where Ray logs; the output of a job is job-driver-<submission id>.log. Gone after `stop`."""
        return self._folder / "session_latest" / "logs"

    def start(self) -> None:
        self._service.start()
        eventually(self._answers, f"Ray's Jobs API is not ready; its log is {self._service.log}", READY_WITHIN_S)

    def stop(self) -> None:
        """End Ray and all it started, its jobs and workers included. Idempotent."""
        # Not SIGTERM, on which Ray drains for half a minute; and by mark, because drivers lead sessions of their own.
        self._service.kill()
        marked.kill(MARK, str(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that Ray knows (GET /api/jobs/), submitted or not."""
        headers = {"Authorization": f"Bearer {self.token_file.read_text()}"}
        request = urllib.request.Request(f"{self.dashboard_url}/api/jobs/", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            jobs: list[dict[str, Any]] = json.load(answer)
            return jobs

    def _answers(self) -> bool:
        if not self._service.runs:
            raise ControlPlaneError(
                f"Ray ended; its log {self._service.log} closes with:\n{self._service.last_words()}"
            )
        try:
            return isinstance(self.jobs(), list)
        except (urllib.error.URLError, OSError, ValueError):
            return False
