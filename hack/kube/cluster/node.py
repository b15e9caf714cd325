"""A node: containerd, kubelet and kube-proxy in a machine of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hack.kube.binaries import ClusterBinaries
from hack.kube.cluster import cgroups
from hack.kube.cluster.credentials import INSIDE, Credentials
from hack.kube.cluster.images import PAUSE
from hack.kube.cluster.machine import Machine
from hack.kube.cluster.network import CONTROL_PLANE, DOMAIN, PODS, Place
from hack.kube.cluster.requirements import cni_folder
from hack.kube.kubectl import ControlPlaneError

SOCKET = "/run/containerd/containerd.sock"
CONTAINERD_ROOT = "containerd"
"""Its folder among those of a machine (see init.py)."""
_CTR = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")
LEASE_S = 20
"""How long a node's lease lasts; the kubelet renews it four times in that span."""
CONTAINERD = """version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Where root may not lower a process' OOM score (no CAP_SYS_RESOURCE), runc fails unless containerd leaves it alone.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
"""


class Node:
    """The node at `place`; `group` is the name of its control group, which no other node on this machine may have."""

    def __init__(self, machine: Machine, place: Place, group: str) -> None:
        self.machine = machine
        self.place = place
        self.group = group

    def configure(self, credentials: Credentials) -> None:
        """Write the files that its programs read."""
        folder = self.machine.folder
        (folder / "cni").mkdir(parents=True, exist_ok=True)
        plugins = cni_folder()
        (folder / "containerd.toml").write_text(CONTAINERD.format(pause=PAUSE, plugins=plugins, cni=folder / "cni"))
        _write(folder / "cni" / "10-pods.conflist", self._cni())
        pair = credentials.kubelet(self.place.name, self.place.address)
        credentials.kubeconfig_for(self.place.name, pair)
        _write(folder / "kubelet.yaml", self._kubelet(credentials, pair))
        proxy = credentials.kubeconfig(f"{self.place.name}-proxy", "system:kube-proxy", server=INSIDE)
        _write(folder / "kube-proxy.yaml", self._proxy(proxy))

    def begin_with(self, seed: Path) -> None:
        """Fill containerd's root, before its machine starts, with the images of another root, which stays as it is."""
        root = self.machine.folder / CONTAINERD_ROOT
        root.parent.mkdir(parents=True, exist_ok=True)
        # Hard links where the folders share a file system, else copies.
        linked = subprocess.run(["cp", "-al", seed, root], capture_output=True, check=False)
        if linked.returncode != 0:
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", seed, root], check=True)
        for database in root.glob("*/*.db"):
            own = database.with_suffix(".own")
            shutil.copy2(database, own)
            own.replace(database)

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers."""
        command = ["containerd", f"--config={self.machine.folder / 'containerd.toml'}"]
        self.machine.parts.start(self._part("containerd"), command)
        self._await_containerd()

    def restart(self) -> None:
        """Start all its programs again that do not run, as they were started before."""
        self.machine.parts.restart(self._part("containerd"))
        # A kubelet that finds no containerd ends.
        self._await_containerd()
        for program in ("kubelet", "kube-proxy"):
            self.machine.parts.restart(self._part(program))

    def load(self, archive: Path) -> None:
        """Import the images of an OCI or Docker archive.

        Raises:
            ControlPlaneError: the node does not run, or containerd refused the archive.
        """
        self._ctr("images", "import", archive)

    def images(self) -> list[str]:
        return self._ctr("images", "list", "-q").split()

    def blobs(self) -> frozenset[str]:
        """Digests of the blobs that it has: layers, configurations, manifests."""
        return frozenset(self._ctr("content", "list", "-q").split())

    @contextmanager
    def importing(self) -> Iterator[IO[bytes]]:
        """A stream that takes an OCI archive; blobs that the node has may be missing from it.

        Raises:
            ControlPlaneError: the node does not run, or containerd refused the archive.
        """
        command = [*self.machine.parts.entering(self.place.name), *_CTR, "images", "import", "-"]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said)
            assert process.stdin is not None
            broken = False
            try:
                yield process.stdin
                process.stdin.close()
            except BrokenPipeError:
                broken = True
            if process.wait() != 0 or broken:
                said.seek(0)
                words = said.read().decode(errors="replace").strip()
                raise ControlPlaneError(f"{self.place.name}: ctr images import: {words or 'it ended early'}")

    def start_kubelet(self, binaries: ClusterBinaries, kubeconfig: Path) -> None:
        """Start the kubelet and kube-proxy."""
        cgroups.make(self.group)
        folder = self.machine.folder
        self.machine.parts.start(self._part("kubelet"), [
            binaries.kubelet, f"--config={folder / 'kubelet.yaml'}", f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.place.name}", f"--node-ip={self.place.address}",
        ])  # fmt: skip
        proxy = [str(binaries.kube_proxy), f"--config={folder / 'kube-proxy.yaml'}"]
        self.machine.parts.start(self._part("kube-proxy"), proxy)

    def _part(self, program: str) -> str:
        return f"{self.place.name}/{program}"

    def _await_containerd(self) -> None:
        self.machine.parts.wait(self._part("containerd"), self._containerd_answers, "containerd is not ready")

    def _containerd_answers(self) -> bool:
        try:
            self._ctr("version")
        except ControlPlaneError:
            return False
        return True

    def _ctr(self, *words: str | Path) -> str:
        return self.machine.run(*_CTR, *words)

    def _cni(self) -> dict[str, Any]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": self.place.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}

    def _kubelet(self, credentials: Credentials, pair: tuple[Path, Path]) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(credentials.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pair[0]),
            "tlsPrivateKeyFile": str(pair[1]),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            # Two kubelets below one root would clean away each other's pods as orphans.
            "cgroupRoot": f"/{self.group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [CONTROL_PLANE],
            "clusterDomain": DOMAIN,
            "resolvConf": "",
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": LEASE_S,
            # The disk is shared with whatever else is on this machine; images cannot be pulled again, so none goes.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        }

    def _proxy(self, kubeconfig: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.place.name,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "oomScoreAdj": 0,
            # The size of the table belongs to the host's network namespace, and is not ours to change.
            "conntrack": {"maxPerCore": 0},
        }


def _write(path: Path, document: dict[str, Any]) -> None:
    # JSON is YAML; CNI reads only JSON.
    path.write_text(json.dumps(document, indent=1))
