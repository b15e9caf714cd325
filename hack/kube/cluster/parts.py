"""The processes of a cluster: each is found again by a mark in its environment, whoever started it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hack.kube.controlplane import ControlPlaneError, eventually
from hack.kube.marked import kill, processes
from hack.kube.processes import Service

REPOSITORY = Path(__file__).parents[3]
CLUSTER_MARK = "SNOWMELT_CLUSTER"
PART_MARK = "SNOWMELT_CLUSTER_PART"
HOST = "host"
"""What stands for this machine itself in a part's name."""
INIT = "init"
GRACE_S = 10.0
EXEC_S = 2.0
"""So long a part may be out of sight: while a process becomes another program (exec), its environment is empty."""


class Parts:
    """The parts of the cluster in `directory`. A part is named MACHINE/PROGRAM, for instance node-1/kubelet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._records = directory / "parts"

    def pids(self, part: str) -> list[int]:
        """Ids, on this machine, of the processes of a part and of all that it started."""
        return processes(PART_MARK, self._mark(part))

    def known(self) -> list[str]:
        """Every part that was ever started."""
        return sorted(str(file.relative_to(self._records).with_suffix("")) for file in self._records.rglob("*.json"))

    def log(self, part: str) -> Path:
        return self.directory / "log" / f"{part.replace('/', '-')}.log"

    def start(self, part: str, command: Sequence[str | Path]) -> None:
        """Start a part in its machine, and remember its command; one that runs is left alone."""
        record = self._records / f"{part}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps([str(word) for word in command]))
        self.restart(part)

    def restart(self, part: str) -> None:
        """Start a part again as it was started before; one that runs is left alone.

        Raises:
            ControlPlaneError: there is no such part, or its machine does not run.
        """
        if part not in self.known():
            raise ControlPlaneError(f"no part is named {part}; there are {', '.join(self.known())}")
        if self.pids(part):
            return
        machine, _, program = part.partition("/")
        inside = machine != HOST and program != INIT
        command = json.loads((self._records / f"{part}.json").read_text())
        self.log(part).parent.mkdir(parents=True, exist_ok=True)
        prefix = self.entering(machine) if inside else []
        Service(part, [*prefix, *command], self.log(part), env=self._environment(part)).start()

    def stop(self, part: str, grace_s: float = GRACE_S) -> None:
        """SIGTERM to all processes of a part, SIGKILL to what is left after `grace_s`. Idempotent."""
        for pid in self.pids(part):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        until = time.monotonic() + grace_s
        while self.pids(part) and time.monotonic() < until:
            time.sleep(0.05)
        kill(PART_MARK, self._mark(part))

    def stop_all(self) -> None:
        """SIGKILL to every process of the cluster: with a machine's process 1 the kernel ends all that it holds."""
        kill(CLUSTER_MARK, str(self.directory))

    def wait(self, part: str, holds: Callable[[], bool], complaint: str, within_s: float = 60.0) -> None:
        """Return as soon as `holds()`.

        Raises:
            ControlPlaneError: the part ended, or `within_s` seconds passed; with its last words.
        """

        seen = time.monotonic()

        def looked() -> bool:
            nonlocal seen
            if holds():
                return True
            if self.pids(part):
                seen = time.monotonic()
            elif time.monotonic() - seen > EXEC_S:
                words = "\n".join(self.log(part).read_text(errors="replace").splitlines()[-8:])
                raise ControlPlaneError(f"{part} ended; its log {self.log(part)} closes with:\n{words}")
            return False

        eventually(looked, f"{complaint}; its log is {self.log(part)}", within_s)

    def entering(self, machine: str, *, own_files: bool = True) -> list[str]:
        """The words that make a command run in a machine; with `own_files=False` in its network alone.

        Raises:
            ControlPlaneError: the machine does not run.
        """
        pid = self.first_process(machine)
        if pid is None:
            raise ControlPlaneError(
                f"{machine} does not run: start it with `python -m hack.kube cluster-start {machine}`"
            )
        return ["nsenter", f"--target={pid}", "--net", *(("--mount", "--pid") if own_files else ())]

    def first_process(self, machine: str) -> int | None:
        """Id, on this machine, of a machine's process 1."""
        return next((pid for pid in self.pids(f"{machine}/{INIT}") if _is_first_of_its_namespace(pid)), None)

    def _mark(self, part: str) -> str:
        return f"{self.directory}:{part}"

    def _environment(self, part: str) -> dict[str, str]:
        """A small one: what the person who calls has in theirs (proxies, keys) is none of the cluster's business."""
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/root", "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY), CLUSTER_MARK: str(self.directory), PART_MARK: self._mark(part),
        }  # fmt: skip


def _is_first_of_its_namespace(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(ids) > 1 and ids[-1] == "1"
