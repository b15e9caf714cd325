"""Addresses, and the wires between machines. All lies in the machines' own network namespaces, nothing on the host.

Every node is wired to a bridge in the control plane's namespace, which has no other wire: no packet leaves this
machine, and several clusters use the same addresses side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hack.kube.cluster.machine import Machine

CONTROL_PLANE = "10.99.0.1"
PREFIX = 24
PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
API_PORT = 6443
DOMAIN = "cluster.local"
BRIDGE = "nodes"
UPLINK = "eth0"
MOST_NODES = 200


@dataclass(frozen=True)
class Place:
    """Where node number `number` (from 1) stands in the network."""

    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        return f"10.99.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.88.{self.number}.0/24"


def lay_bridge(control_plane: Machine) -> None:
    """Give the control plane its address, on a bridge. Safe to repeat."""
    if control_plane.has_link(BRIDGE):
        return
    _ip(
        control_plane,
        f"link add {BRIDGE} type bridge",
        f"address add {CONTROL_PLANE}/{PREFIX} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def connect(node: Machine, place: Place, control_plane: Machine, others: Sequence[Place]) -> None:
    """Wire a node to the bridge, and route the pods of all nodes to where they are. Safe to repeat."""
    if not node.has_link(UPLINK):
        _ip(
            control_plane,
            f"link add {place.name} type veth peer name {UPLINK} netns {node.pid}",
            f"link set {place.name} master {BRIDGE} up",
        )
    _ip(
        node,
        f"address replace {place.address}/{PREFIX} dev {UPLINK}",
        f"link set {UPLINK} up",
        # Leads nowhere; without it an address of a service has no route, and kube-proxy's rules are never reached.
        f"route replace default via {CONTROL_PLANE}",
        *(f"route replace {other.pods} via {other.address}" for other in others if other != place),
    )
    _ip(control_plane, f"route replace {place.pods} via {place.address}")


def _ip(machine: Machine, *lines: str) -> None:
    """`ip` reads ids of processes as the host numbers them, so it enters the network alone."""
    machine.run("ip", "-batch", "-", stdin="\n".join(lines), own_files=False)
