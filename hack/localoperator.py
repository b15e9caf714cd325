"""The operator as a process of this machine, against a control plane of hack.kube."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from hack.kube.controlplane import ControlPlane, ControlPlaneError, eventually
from hack.kube.processes import Service, Startable, free_port

READY_WITHIN_S = 60.0


class LocalOperator(Startable):
    """`python -m snowmelt_operator` as the control plane's user `operator`, or as whom `kubeconfig` names; `settings`
    become SNOWMELT_* variables.

    Its ports stay the same when it is started again, as a Service's would.
    """

    def __init__(
        self, plane: ControlPlane, log: Path, *, kubeconfig: Path | None = None, **settings: str | Path
    ) -> None:
        self.progress_port, health_port = free_port(), free_port()
        self.health_url = f"http://127.0.0.1:{health_port}"
        given = {
            "progress_url": f"http://127.0.0.1:{self.progress_port}",
            "progress_port": self.progress_port,
            "health_port": health_port,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SNOWMELT_")}
        environment |= {f"SNOWMELT_{name.upper()}": str(value) for name, value in given.items()}
        environment["KUBECONFIG"] = str(kubeconfig or plane.kubeconfig("operator"))
        self.service = Service("operator", [sys.executable, "-m", "snowmelt_operator"], log, env=environment)

    def start(self) -> None:
        """Start it and wait until /readyz says yes.

        Raises:
            ControlPlaneError: it ended, or was not ready within a minute.
        """
        self.service.start()
        eventually(self.is_ready, f"the operator is not ready; its log is {self.service.log}", READY_WITHIN_S)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. Idempotent."""
        self.service.stop()

    def kill(self) -> None:
        """SIGKILL, as when a node goes."""
        self.service.kill()

    def is_ready(self) -> bool:
        """What /readyz says.

        Raises:
            ControlPlaneError: it ended.
        """
        if not self.service.runs:
            words = self.service.last_words()
            raise ControlPlaneError(f"the operator ended; its log {self.service.log} closes with:\n{words}")
        try:
            with urllib.request.urlopen(f"{self.health_url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
