"""A cluster from its first process to its last."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hack.kube.binaries import ClusterBinaries, cache_folder, find_cluster_binaries
from hack.kube.cluster import cgroups, kuberay, network, requirements, servers
from hack.kube.cluster.credentials import Credentials
from hack.kube.cluster.images import write_images
from hack.kube.cluster.machine import Machine
from hack.kube.cluster.network import Place
from hack.kube.cluster.node import Node
from hack.kube.cluster.parts import CLUSTER_MARK, Parts
from hack.kube.cluster.probe import probe
from hack.kube.controlplane import ControlPlaneError, eventually, write_secret
from hack.kube.gobuild import exclusively
from hack.kube.kubectl import Kubectl
from hack.kube.marked import processes
from hack.kube.processes import free_port

MANIFESTS = Path(__file__).with_name("manifests")
OURS = "this-folder-is-a-cluster"
NODES_READY_WITHIN_S = 120.0


class Cluster:
    """The cluster that lies in `directory`; nothing runs before `up`. All methods may be called from any process.

    Raises:
        RequirementsError: from `up`, when this machine cannot run one.
        BinariesMissingError: from `up`, when there is no Go to build what is missing.
        ControlPlaneError: from any, when a part does not come up; the message holds its last words.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.kubeconfig = self.directory / "kubeconfig"
        self.volumes = self.directory / "volumes"
        self.parts = Parts(self.directory)
        self.control_plane = Machine(self.parts, servers.NAME)
        self._state = self.directory / "cluster.json"
        self._identity = hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]
        self._groups = f"snowmelt-{self._identity}-"
        self._lock = cache_folder() / f".cluster-{self._identity}.lock"

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the cluster that is up.

        Raises:
            ControlPlaneError: none is.
        """
        if not self._state.exists():
            raise ControlPlaneError(f"no cluster is up in {self.directory}: start one with `make cluster-up`")
        return [self._node(number + 1) for number in range(json.loads(self._state.read_text())["nodes"])]

    def kubectl(self) -> Kubectl:
        return Kubectl(find_cluster_binaries().control_plane.kubectl, self.kubeconfig)

    def check(self) -> None:
        """Return when this machine can run a cluster in this folder.

        Raises:
            RequirementsError: it lacks something, or its kernel refuses something; says all of it.
        """
        requirements.check(self.directory, cache_folder())
        probe(self.directory)

    def up(self, nodes: int = 2, *, seed: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        """Start a cluster with so many nodes and wait until they and KubeRay's operator are ready.

        The nodes' containerd begins with what the root `seed` has (see hack/images/seed.py).

        One that runs already is left as it is. When it fails, all is stopped and the logs stay.
        """
        self.check()
        binaries = find_cluster_binaries()
        with exclusively(self._lock):
            if self._state.exists():
                self._check_whole()
                return
            self._claim_directory()
            try:
                self._raise(nodes, binaries, seed, say)
            except BaseException:
                self._end_processes()
                raise
            self._state.write_text(json.dumps({"nodes": nodes}))

    def down(self) -> None:
        """End every process, mount, address and control group of the cluster, and remove its folder, volumes and all.

        Safe to repeat, and after a crash at any moment.
        """
        with exclusively(self._lock):
            self._end_processes()
            if (self.directory / OURS).exists():
                shutil.rmtree(self.directory)
        self._lock.unlink(missing_ok=True)

    def load(self, archive: Path, nodes: Iterable[Node] | None = None) -> None:
        """Import the images of an OCI or Docker archive on every node."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load(archive), list(nodes or self.nodes)))

    def stop(self, name: str) -> None:
        """End a part (control-plane/kube-apiserver), or a whole node at once as if its plug was pulled (node-2)."""
        if "/" in name:
            self.parts.stop(name)
        else:
            self._node_named(name).machine.stop()

    def start(self, name: str) -> None:
        """Start a part or a node again that `stop` ended; for a node it is a reboot: its disk is as it was."""
        if "/" in name:
            self.parts.restart(name)
            return
        node = self._node_named(name)
        self._plug_in(node, [other.place for other in self.nodes])
        node.restart()

    def leftovers(self) -> list[str]:
        """What there is of this cluster outside of its folder, in words; empty when it is down."""
        mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return [
            *(f"process {pid}" for pid in processes(CLUSTER_MARK, str(self.directory))),
            *(f"control group {group}" for group in cgroups.left(self._groups)),
            *(f"mount {place}" for place in mounts if Path(place).is_relative_to(self.directory)),
        ]

    def _raise(self, count: int, binaries: ClusterBinaries, seed: Path | None, say: Callable[[str], None]) -> None:
        credentials = Credentials(self.directory / "pki")
        port = free_port()
        admin = credentials.kubeconfig("admin", "admin", "system:masters", server=f"https://127.0.0.1:{port}")
        write_secret(self.kubeconfig, admin.read_text())
        kubectl = Kubectl(binaries.control_plane.kubectl, self.kubeconfig)
        nodes = [self._node(number + 1) for number in range(count)]
        say("starting etcd and kube-apiserver")
        self._start_apiserver(binaries, credentials, port)
        with ThreadPoolExecutor() as pool:
            prepared = pool.submit(self._prepare_nodes, nodes, binaries, credentials, seed)
            servers.await_apiserver(self.control_plane, kubectl)
            say("starting the controllers, DNS and the nodes")
            kubectl("apply", "--server-side", "-f", MANIFESTS)
            installed = pool.submit(kuberay.install, kubectl, self.directory / "kuberay")
            servers.start_controllers(self.control_plane, binaries, credentials)
            servers.start_dns(self.control_plane, binaries, credentials)
            servers.start_provisioner(self.control_plane, credentials, self.volumes)
            prepared.result()
            for node in nodes:
                node.start_kubelet(binaries, credentials.folder / f"{node.place.name}.kubeconfig")
            installed.result()
        servers.await_dns(self.control_plane)
        say("waiting for the nodes")
        eventually(lambda: _ready_nodes(kubectl) == count, "the nodes are not ready", NODES_READY_WITHIN_S)
        say("waiting for KubeRay's operator")
        kuberay.await_ready(kubectl)

    def _start_apiserver(self, binaries: ClusterBinaries, credentials: Credentials, port: int) -> None:
        self.control_plane.start()
        network.lay_bridge(self.control_plane)
        servers.start_etcd(self.control_plane, binaries, credentials)
        servers.start_apiserver(self.control_plane, binaries, credentials)
        servers.start_forward(self.control_plane, port)

    def _prepare_nodes(
        self, nodes: list[Node], binaries: ClusterBinaries, credentials: Credentials, seed: Path | None
    ) -> None:
        archives = write_images(self.directory / "images", binaries)
        for node in nodes:
            if seed is not None:
                node.begin_with(seed)
            self._plug_in(node, [other.place for other in nodes])
            node.configure(credentials)
            node.start_containerd()
            for archive in archives:
                node.load(archive)

    def _plug_in(self, node: Node, places: list[Place]) -> None:
        node.machine.start()
        network.connect(node.machine, node.place, self.control_plane, places)

    def _node(self, number: int) -> Node:
        place = Place(number)
        return Node(Machine(self.parts, place.name), place, f"{self._groups}{place.name}")

    def _node_named(self, name: str) -> Node:
        for node in self.nodes:
            if node.place.name == name:
                return node
        raise ControlPlaneError(f"no node is named {name}; there are {', '.join(n.place.name for n in self.nodes)}")

    def _claim_directory(self) -> None:
        """Empty the folder of what a failed `up` left; refuse one that is not ours."""
        if self.directory.exists() and any(self.directory.iterdir()) and not (self.directory / OURS).exists():
            raise ControlPlaneError(
                f"{self.directory} holds other files, and `cluster-down` would remove them: name another"
            )
        self._end_processes()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.directory.mkdir(mode=0o711, parents=True)
        (self.directory / OURS).touch()
        self.volumes.mkdir()

    def _check_whole(self) -> None:
        missing = [part for part in self.parts.known() if not self.parts.pids(part)]
        if missing:
            raise ControlPlaneError(
                f"the cluster in {self.directory} runs without {', '.join(missing)}:"
                " start them with `python -m hack.kube cluster-start NAME`, or begin anew with `make cluster-down`"
            )

    def _end_processes(self) -> None:
        self.parts.stop_all()
        cgroups.remove(self._groups)
        if left := self.leftovers():
            raise ControlPlaneError(f"this is left of the cluster in {self.directory}: {', '.join(left)}")


def _ready_nodes(kubectl: Kubectl) -> int:
    conditions = (node["status"].get("conditions", []) for node in kubectl.get("nodes")["items"])
    return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in those) for those in conditions)
