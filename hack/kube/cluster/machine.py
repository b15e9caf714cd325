"""A machine: programs with network, mounts and process ids of their own, on the kernel of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hack.kube.cluster.init import READY
from hack.kube.cluster.parts import INIT, Parts
from hack.kube.controlplane import ControlPlaneError

INIT_FILE = Path(__file__).with_name("init.py")


class Machine:
    """A machine called `name`; its processes are parts of the cluster, called `<name>/<program>`."""

    def __init__(self, parts: Parts, name: str) -> None:
        self.name = name
        self.parts = parts
        self.folder = parts.directory / "machines" / name

    @property
    def runs(self) -> bool:
        return self.parts.first_process(self.name) is not None

    @property
    def pid(self) -> int:
        """Id, on the host, of its process 1.

        Raises:
            ControlPlaneError: it does not run.
        """
        pid = self.parts.first_process(self.name)
        if pid is None:
            raise ControlPlaneError(f"{self.name} does not run")
        return pid

    def start(self) -> None:
        """Start it, empty but for process 1. One that runs is left alone.

        Raises:
            ControlPlaneError: it did not become ready.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # --kill-child: the machine ends even when its parent alone is killed.
        new = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.parts.start(f"{self.name}/{INIT}", [*new, sys.executable, INIT_FILE, self.folder])
        self.parts.wait(f"{self.name}/{INIT}", lambda: self.has(READY), f"{self.name} is not ready")

    def stop(self) -> None:
        """Pull its plug: every process, mount and address of it is gone at once. Its disks stay."""
        self.parts.stop(f"{self.name}/{INIT}", grace_s=0)

    def has(self, path: Path) -> bool:
        """Whether the machine runs and has `path`."""
        pid = self.parts.first_process(self.name)
        return pid is not None and Path(f"/proc/{pid}/root", str(path).lstrip("/")).exists()

    def has_link(self, name: str) -> bool:
        """Whether it has a network interface of this name."""
        links = json.loads(self.run("ip", "-json", "link", "show", own_files=False))
        return any(link["ifname"] == name for link in links)

    def run(self, *command: str | Path, stdin: str | None = None, own_files: bool = True) -> str:
        """Run a command in it to its end, and return what it printed; `own_files` as `Parts.entering` has it.

        Raises:
            ControlPlaneError: the command failed; the message is what it wrote to stderr.
        """
        words = [*self.parts.entering(self.name, own_files=own_files), *(str(word) for word in command)]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            raise ControlPlaneError(f"{self.name}: {' '.join(map(str, command[:3]))}: {said}")
        return done.stdout
