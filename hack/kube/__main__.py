"""`python -m hack.kube`: a control plane, or a whole cluster, for people to try things on."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from hack.kube.binaries import (
    BinariesMissingError,
    find_binaries,
    find_cluster_binaries,
    find_helm,
    kuberay_config,
    kuberay_crds,
)
from hack.kube.cluster.commands import add_commands
from hack.kube.cluster.requirements import RequirementsError
from hack.kube.controlplane import ControlPlane, ControlPlaneError
from hack.kube.processes import ended

REPOSITORY = Path(__file__).parents[2]
STATE = "services.json"
CANNOT = 3
"""Exit status when this machine cannot run a cluster, whatever one does here; .ci/run tells it from a failure."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.kube", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.add_argument(
            "--directory", type=Path, default=REPOSITORY / "out" / "kube", help="where it lies (%(default)s)"
        )
        command.set_defaults(run=lambda options, run=run: run(options.directory.resolve()))
    add_commands(commands)
    options = parser.parse_args()
    try:
        options.run(options)
    except (BinariesMissingError, ControlPlaneError, RequirementsError) as error:
        print(f"hack.kube: {error}", file=sys.stderr)
        return CANNOT if isinstance(error, RequirementsError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def binaries(_directory: Path) -> None:
    """Find or build everything a control plane and its tests need."""
    found = find_binaries()
    print(*(found.kube_apiserver, found.etcd, found.kubectl, *kuberay_crds()), sep="\n")


def cluster_binaries(_directory: Path) -> None:
    """Find or build everything that a whole cluster needs."""
    found = find_cluster_binaries()
    print(found.kubelet.parent, found.coredns, found.kuberay_operator, kuberay_config(), sep="\n")


def helm(_directory: Path) -> None:
    """Find or build helm, and print where it lies."""
    print(find_helm())


def up(directory: Path) -> None:
    """Start a control plane with Snowmelt's CRDs and RBAC that lives until `down`."""
    if _running(directory):
        raise ControlPlaneError(f"a control plane already runs in {directory}: end it with `python -m hack.kube down`")
    plane = ControlPlane(directory)
    try:
        plane.start()
        (directory / STATE).write_text(json.dumps([plane.apiserver.pid, plane.etcd.pid]))
        plane.install_crds(*sorted((REPOSITORY / "crds").glob("*.yaml")))
        plane.kubectl("apply", "-f", REPOSITORY / "hack/kube/rbac.yaml")
    except BaseException:
        plane.stop()
        raise
    env(directory)


def down(directory: Path) -> None:
    """End what `up` started in this folder: the API server first, then etcd."""
    for pid in _running(directory):
        os.killpg(pid, signal.SIGTERM)
        if not ended(pid, within_s=15):
            os.killpg(pid, signal.SIGKILL)
    (directory / STATE).unlink(missing_ok=True)


def env(directory: Path) -> None:
    """Print lines for a shell: `eval "$(python -m hack.kube env)"`."""
    if not _running(directory):
        raise ControlPlaneError(f"no control plane runs in {directory}: start one with `python -m hack.kube up`")
    print(f"export KUBECONFIG={directory / 'admin.kubeconfig'}")
    print(f"export PATH={find_binaries().kubectl.parent}:$PATH")


COMMANDS = {
    "binaries": binaries,
    "cluster-binaries": cluster_binaries,
    "helm": helm,
    "up": up,
    "down": down,
    "env": env,
}


def _running(directory: Path) -> list[int]:
    """The servers of this folder that still run; a process id that went to someone else is not taken for one."""
    state = directory / STATE
    pids = json.loads(state.read_text()) if state.exists() else []
    return [pid for pid in pids if str(directory) in _command_line(pid)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
