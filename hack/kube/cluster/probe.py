"""Whether this machine's kernel lets us do what a cluster does: each thing is tried once, in namespaces of its own.

A container or a sandbox often has root and every package, and yet may not mount or lay a bridge. What is tried here
goes with the namespaces, so nothing is left of it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hack.kube.cluster import cgroups
from hack.kube.cluster.requirements import RequirementsError

IN_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
NAMESPACES = "namespaces of network, mounts and processes"
TRIALS = {
    "a file system in memory": 'mount -t tmpfs tmpfs "$1/merged"',
    "overlayfs, which images are unpacked to": (
        'mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged"'
    ),
    "a bridge between nodes": "ip link add probe type bridge",
    "a wire between nodes": "ip link add probe type veth peer name other",
    "forwarding of packets": "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "rules for packets": "iptables --table nat --list",
}
"""What a cluster needs of the kernel, and the shell command that shows it; $1 is an empty folder of its own."""
TRIED_WITHIN_S = 30.0


def probe(folder: Path) -> None:
    """Return when a cluster can run that lies in `folder`, or in a folder beside it.

    Raises:
        RequirementsError: the kernel refuses something; names all that it refuses, in its words.
    """
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    # Without namespaces nothing else can be tried.
    refused = _refused(NAMESPACES, "true", existing) or [
        *(words for what, command in TRIALS.items() for words in _refused(what, command, existing)),
        *_refused_control_groups(),
    ]
    if refused:
        raise RequirementsError(
            "a cluster cannot run on this machine, which refuses\n" + "\n".join(f"  - {one}" for one in refused)
        )


def _refused(what: str, command: str, beside: Path) -> list[str]:
    with tempfile.TemporaryDirectory(dir=beside, prefix=".probe-") as workspace:
        for name in ("lower", "upper", "work", "merged"):
            (Path(workspace) / name).mkdir()
        said = _try(command, workspace)
    return [f"{what}: {said}"] if said else []


def _try(command: str, workspace: str) -> str:
    """What a command that failed said first; empty when it did not fail."""
    words = [*IN_NAMESPACES, "sh", "-ec", command, "sh", workspace]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TRIED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {TRIED_WITHIN_S:.0f} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]


def _refused_control_groups() -> list[str]:
    name = "snowmelt-probe"
    try:
        cgroups.make(name)
    except OSError as error:
        return [f"control groups: {error}"]
    else:
        return [] if cgroups.left(name) else ["control groups: none are mounted"]
    finally:
        cgroups.remove(name)
