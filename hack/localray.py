"""A Ray of our own on loopback, beside any other Ray of this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from hack.kube import marked
from hack.kube.controlplane import ControlPlaneError, eventually
from hack.kube.processes import Service, free_port

MARK = "SNOWMELT_LOCAL_RAY"
"""Environment variable that everything of one Ray inherits, jobs and workers included."""
OBJECT_STORE_BYTES = 200 * 1024 * 1024
READY_WITHIN_S = 90.0


class LocalRay:
    """`ray start --head` with ports and folders of its own; `dashboard_url` is where its Jobs API listens.

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
        environment = os.environ | dict(env or {}) | {"RAY_USAGE_STATS_ENABLED": "0", MARK: str(self._folder)}
        self._service = Service("ray", command, log, env=environment)

    def __enter__(self) -> LocalRay:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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

    def _answers(self) -> bool:
        if not self._service.runs:
            raise ControlPlaneError(
                f"Ray ended; its log {self._service.log} closes with:\n{self._service.last_words()}"
            )
        try:
            with urllib.request.urlopen(f"{self.dashboard_url}/api/jobs/", timeout=5) as answer:
                return isinstance(json.load(answer), list)
        except (urllib.error.URLError, OSError, ValueError):
            return False
