"""Control groups of nodes, in the hierarchies of version 1 or the one of version 2."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hack.kube.controlplane import eventually

GONE_WITHIN_S = 30.0
COPIED_FROM_PARENT = ("cpuset.cpus", "cpuset.mems")
"""In version 1 these start empty, and then no process may enter the group."""


def make(name: str) -> None:
    """Make the group `name` at the top of every hierarchy. Idempotent."""
    mounted = _hierarchies()
    for hierarchy in mounted["cgroup"] or mounted["cgroup2"]:
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in COPIED_FROM_PARENT:
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((hierarchy / setting).read_text())


def remove(prefix: str) -> None:
    """Remove every group at the top whose name begins with `prefix`, and all below; waits for the last processes to go.

    Raises:
        ControlPlaneError: a process is in one still.
    """
    for hierarchy in _all():
        for group in hierarchy.glob(f"{prefix}*/"):
            eventually(partial(_removed, group), f"processes stay in the control group {group}", GONE_WITHIN_S)


def left(prefix: str) -> list[Path]:
    """The groups at the top whose names begin with `prefix`."""
    return [group for hierarchy in _all() for group in hierarchy.glob(f"{prefix}*/")]


def _removed(group: Path) -> bool:
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        try:
            folder.rmdir()
        except OSError:
            continue
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _all() -> list[Path]:
    """Beside version 1 a hierarchy of version 2 holds processes only, yet runc makes groups in it as well."""
    return [mount for mounts in _hierarchies().values() for mount in mounts]


def _hierarchies() -> dict[str, list[Path]]:
    """Mount points by version, as /proc/self/mountinfo has them (proc(5))."""
    by_type: dict[str, list[Path]] = {"cgroup": [], "cgroup2": []}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, _, source = line.partition(" - ")
        kind = source.split()[0]
        if kind in by_type:
            by_type[kind].append(Path(mounted.split()[4]))
    return by_type
