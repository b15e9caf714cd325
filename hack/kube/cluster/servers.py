"""The control plane of a cluster: the parts of the machine `control-plane`, and the way in from the host."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from hack.kube.binaries import ClusterBinaries
from hack.kube.cluster.credentials import DNS_USER, PROVISIONER_USER, Credentials
from hack.kube.cluster.machine import Machine
from hack.kube.cluster.network import API_PORT, CONTROL_PLANE, DOMAIN, SERVICES
from hack.kube.cluster.parts import HOST
from hack.kube.kubectl import ControlPlaneError, Kubectl

NAME = "control-plane"
FORWARD = f"{HOST}/forward"
ETCD_URL = "https://127.0.0.1:2379"
FORWARDER = Path(__file__).with_name("forward.py")
NODE_IS_LOST_AFTER = "20s"
"""Kubernetes' own is 50 s; kubelets here renew their leases faster (see node.py)."""
DNS_READY = "127.0.0.1:8181"


def start_etcd(machine: Machine, binaries: ClusterBinaries, credentials: Credentials) -> None:
    certificate, key = credentials.etcd
    peers = "https://127.0.0.1:2380"
    machine.parts.start(f"{NAME}/etcd", [
        binaries.control_plane.etcd, f"--data-dir={machine.folder / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
        "--client-cert-auth", f"--trusted-ca-file={credentials.etcd_authority.file}",
        f"--cert-file={certificate}", f"--key-file={key}",
        "--peer-client-cert-auth", f"--peer-trusted-ca-file={credentials.etcd_authority.file}",
        f"--peer-cert-file={certificate}", f"--peer-key-file={key}", "--log-level=warn",
    ])  # fmt: skip


def start_apiserver(machine: Machine, binaries: ClusterBinaries, credentials: Credentials) -> None:
    serving, key = credentials.apiserver
    etcd, etcd_key = credentials.etcd_client
    kubelet, kubelet_key = credentials.kubelet_client
    machine.parts.start(f"{NAME}/kube-apiserver", [
        binaries.control_plane.kube_apiserver, "--bind-address=0.0.0.0", f"--secure-port={API_PORT}",
        f"--advertise-address={CONTROL_PLANE}", f"--tls-cert-file={serving}", f"--tls-private-key-file={key}",
        f"--etcd-servers={ETCD_URL}", f"--etcd-cafile={credentials.etcd_authority.file}",
        f"--etcd-certfile={etcd}", f"--etcd-keyfile={etcd_key}",
        f"--client-ca-file={credentials.ca}", "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-certificate-authority={credentials.ca}", f"--kubelet-client-certificate={kubelet}",
        f"--kubelet-client-key={kubelet_key}", "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials.signing_key}",
        f"--service-account-signing-key-file={credentials.signing_key}", f"--service-cluster-ip-range={SERVICES}",
        # No kube-proxy beside the API server: it finds the pods of webhooks by itself.
        "--enable-aggregator-routing=true", "--allow-privileged=true", "--profiling=false",
    ])  # fmt: skip


def start_controllers(machine: Machine, binaries: ClusterBinaries, credentials: Credentials) -> None:
    """kube-controller-manager and kube-scheduler."""
    manager = credentials.kubeconfig("controller-manager", "system:kube-controller-manager")
    scheduler = credentials.kubeconfig("scheduler", "system:kube-scheduler")
    common = ["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"]
    machine.parts.start(f"{NAME}/kube-controller-manager", [
        binaries.kube_controller_manager, *_kubeconfigs(manager), *common, "--use-service-account-credentials=true",
        f"--service-account-private-key-file={credentials.signing_key}", f"--root-ca-file={credentials.ca}",
        f"--node-monitor-grace-period={NODE_IS_LOST_AFTER}",
    ])  # fmt: skip
    machine.parts.start(f"{NAME}/kube-scheduler", [binaries.kube_scheduler, *_kubeconfigs(scheduler), *common])


def start_dns(machine: Machine, binaries: ClusterBinaries, credentials: Credentials) -> None:
    """CoreDNS on the control plane's address; names outside of the cluster do not exist."""
    kubeconfig = credentials.kubeconfig("dns", DNS_USER)
    corefile = machine.folder / "Corefile"
    corefile.write_text(
        f".:53 {{\n  bind {CONTROL_PLANE}\n  errors\n  ready {DNS_READY}\n"
        f"  kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{\n    kubeconfig {kubeconfig} snowmelt\n"
        "    pods insecure\n  }\n  cache 5\n}\n"
    )
    machine.parts.start(f"{NAME}/coredns", [binaries.coredns, "-conf", corefile])


def start_provisioner(machine: Machine, credentials: Credentials, volumes: Path) -> None:
    kubeconfig = credentials.kubeconfig("provisioner", PROVISIONER_USER)
    command = [sys.executable, "-m", "hack.kube.cluster.provisioner", str(kubeconfig), str(volumes)]
    machine.parts.start(f"{NAME}/provisioner", command)


def start_forward(machine: Machine, port: int) -> None:
    """Let 127.0.0.1:`port` of the host lead to the API server."""
    words = [sys.executable, str(FORWARDER), str(port), str(machine.pid), CONTROL_PLANE, str(API_PORT)]
    machine.parts.start(FORWARD, words)


def await_apiserver(machine: Machine, kubectl: Kubectl) -> None:
    """Wait until the API server answers through the forwarder that it is ready, its own roles included."""
    machine.parts.wait(
        f"{NAME}/kube-apiserver", partial(_says_ok, kubectl), "kube-apiserver is not ready", within_s=120.0
    )


def await_dns(machine: Machine) -> None:
    """Wait until CoreDNS has read the cluster's services."""
    machine.parts.wait(f"{NAME}/coredns", lambda: _answers(machine), "coredns is not ready")


def _kubeconfigs(file: Path) -> list[str]:
    return [f"--{use}kubeconfig={file}" for use in ("", "authentication-", "authorization-")]


def _says_ok(kubectl: Kubectl) -> bool:
    try:
        return kubectl("get", "--raw=/readyz").strip() == "ok"
    except ControlPlaneError:
        return False


def _answers(machine: Machine) -> bool:
    question = f"import urllib.request as r; r.urlopen('http://{DNS_READY}/ready', timeout=2)"
    try:
        machine.run(sys.executable, "-c", question)
    except ControlPlaneError:
        return False
    return True
