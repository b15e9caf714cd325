"""Process 1 of a machine: gives it folders of its own, then reaps what its programs leave behind.

Run by its path, in new mount, network and process namespaces: `init.py FOLDER`. It ends when it is killed, and then the
kernel ends every process, mount, address and packet filter rule of the machine with it. Standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

READY = Path("/run/machine-is-ready")
OWN_FOLDERS = {"kubelet": "/var/lib/kubelet", "containerd": "/var/lib/containerd", "log": "/var/log"}
"""Folders of the machine that outlast it, below FOLDER, and where its programs look for them."""
TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet sets (setupKernelTunables in pkg/kubelet/cm): settings of the whole kernel, so not a node's."""


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for place in ("/run", "/var/lib"):
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    for name, place in OWN_FOLDERS.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        Path(place).mkdir(exist_ok=True)
        _mount("--bind", str(folder), place)
    _show_tunables()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    READY.touch()
    while True:
        signal.sigwait({signal.SIGCHLD})
        _reap()


def _show_tunables() -> None:
    """Show the kubelet the settings that it wants, so that it changes none of this machine's."""
    for name, value in TUNABLES.items():
        shown = Path("/run/tunables") / name
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.write_text(f"{value}\n")
        _mount("--bind", str(shown), f"/proc/sys/{name}")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
