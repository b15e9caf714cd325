"""The commands of `python -m hack.kube` for a whole cluster."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hack.kube.binaries import find_binaries
from hack.kube.cluster.cluster import Cluster
from hack.kube.cluster.network import MOST_NODES
from hack.kube.kubectl import ControlPlaneError

REPOSITORY = Path(__file__).parents[3]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add cluster-check, -up, -down, -load, -stop and -start to a parser's commands; each sets `run`."""
    _command(commands, "cluster-check", cluster_check, "say whether this machine can run a cluster, and if not, why")
    up = _command(
        commands, "cluster-up", cluster_up, "start a whole cluster (Linux, root), KubeRay's operator included"
    )
    up.add_argument("--nodes", type=_nodes, default=2, help="how many nodes (%(default)s)")
    _command(commands, "cluster-down", cluster_down, "end it, and remove its folder with all volumes")
    load = _command(commands, "cluster-load", cluster_load, "import the images of an archive on every node")
    load.add_argument("archive", type=Path, help="an OCI or Docker archive (a tar file)")
    for name, run, what in (("stop", cluster_stop, "kill"), ("start", cluster_start, "start again")):
        command = _command(commands, f"cluster-{name}", run, f"{what} a node or a part, to see what happens")
        command.add_argument("name", help="for instance node-2, control-plane/etcd or node-1/kubelet")


def cluster_check(options: argparse.Namespace) -> None:
    Cluster(options.directory).check()


def cluster_up(options: argparse.Namespace) -> None:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}", file=sys.stderr, flush=True)

    cluster = Cluster(options.directory)
    cluster.up(options.nodes, say=say)
    say(f"{len(cluster.nodes)} nodes and KubeRay's operator are ready")
    print(f"export KUBECONFIG={cluster.kubeconfig}\nexport PATH={find_binaries().kubectl.parent}:$PATH")


def cluster_down(options: argparse.Namespace) -> None:
    Cluster(options.directory).down()


def cluster_load(options: argparse.Namespace) -> None:
    if not options.archive.is_file():
        raise ControlPlaneError(f"there is no file {options.archive}: name an OCI or Docker archive")
    Cluster(options.directory).load(options.archive.resolve())


def cluster_stop(options: argparse.Namespace) -> None:
    Cluster(options.directory).stop(options.name)


def cluster_start(options: argparse.Namespace) -> None:
    Cluster(options.directory).start(options.name)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    what: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=what)
    command.add_argument(
        "--directory", type=Path, default=REPOSITORY / ".cluster", help="where all of it lies (%(default)s)"
    )
    command.set_defaults(run=run)
    return command


def _nodes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_NODES:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MOST_NODES}")
    return number
