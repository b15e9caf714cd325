"""What this machine must have before a cluster can run on it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
"""Commands, and the Debian package that has each."""
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
HIDDEN_IN_MACHINES = (Path("/run"), Path("/var/lib"), Path("/var/log"))
"""Folders that each machine has of its own, so that nothing it needs of this one may lie below them."""


class RequirementsError(Exception):
    """A cluster cannot run here; the message lists every reason and what to do about it."""


def check(*needed: Path) -> None:
    """Return when a cluster can run here that uses the folders `needed`.

    Raises:
        RequirementsError: it cannot.
    """
    problems = [*_system(), *_packages(), *_places(needed)]
    if problems:
        raise RequirementsError("a cluster cannot run on this machine:\n" + "\n".join(f"  - {one}" for one in problems))


def cni_folder() -> Path | None:
    """Where the CNI plugins lie; None when no known folder has them all."""
    for folder in CNI_FOLDERS:
        if all(os.access(folder / plugin, os.X_OK) for plugin in CNI_PLUGINS):
            return folder
    return None


def _system() -> list[str]:
    if sys.platform != "linux":
        return [
            f"it is {sys.platform}, and namespaces and cgroups are Linux': use a Linux machine, or your own cluster"
        ]
    if os.geteuid() != 0:
        return ["namespaces and cgroups need root: run it with sudo"]
    return []


def _packages() -> list[str]:
    missing = {package for command, package in PACKAGES.items() if shutil.which(command) is None}
    if cni_folder() is None:
        missing.add("containernetworking-plugins")
    if not missing:
        return []
    names = " ".join(sorted(missing))
    return [f"missing: {names}; on Debian or Ubuntu: apt-get install --no-install-recommends {names}"]


def _places(needed: tuple[Path, ...]) -> list[str]:
    return [
        f"{path} lies below {hidden}, which each node has of its own: choose another (--directory, XDG_CACHE_HOME)"
        for path in needed
        for hidden in HIDDEN_IN_MACHINES
        if path.resolve().is_relative_to(hidden)
    ]
