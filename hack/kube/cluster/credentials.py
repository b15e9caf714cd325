"""Who is who in a cluster: one certificate and one kubeconfig each, with the rights of its role alone.

Users and groups are those that Kubernetes gives roles to by itself (system:node:… by the node authorizer, others by
the default ClusterRoles, https://kubernetes.io/docs/reference/access-authn-authz/rbac/); manifests/rbac.yaml adds two.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from hack.kube.cluster.network import API_PORT, API_SERVICE, CONTROL_PLANE, DOMAIN
from hack.kube.controlplane import write_secret
from hack.kube.pki import LOOPBACK, Authority, write_key

INSIDE = f"https://{CONTROL_PLANE}:{API_PORT}"
API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
DNS_USER = "snowmelt:dns"
PROVISIONER_USER = "snowmelt:provisioner"


class Credentials:
    """Keys, certificates and kubeconfigs, made anew below `folder`, which its owner alone can read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = Authority(folder)
        # etcd believes an authority of its own: none of the cluster's users is a user of etcd.
        self.etcd_authority = Authority(folder / "etcd")
        self.ca = self._authority.file
        self.etcd = self.etcd_authority.issue("etcd")
        self.etcd_client = self.etcd_authority.issue("kube-apiserver")
        self.signing_key = write_key(folder / "service-accounts.key")
        self.apiserver = self._authority.issue(
            "kube-apiserver", hosts=(*LOOPBACK, CONTROL_PLANE, API_SERVICE, *API_NAMES)
        )
        self.kubelet_client = self._authority.issue("kubelet-client", user="kube-apiserver")

    def kubelet(self, node: str, address: str) -> tuple[Path, Path]:
        """The certificate and key with which a kubelet serves, and calls."""
        return self._authority.issue(node, user=f"system:node:{node}", group="system:nodes", hosts=(node, address))

    def kubeconfig(self, name: str, user: str, group: str | None = None, *, server: str = INSIDE) -> Path:
        """A kubeconfig for `user`, with a certificate issued for it."""
        return self.kubeconfig_for(name, self._authority.issue(name, user=user, group=group), server=server)

    def kubeconfig_for(self, name: str, pair: tuple[Path, Path], *, server: str = INSIDE) -> Path:
        """A kubeconfig whose user is the holder of a certificate and its key; it holds no paths, so it can be moved."""
        cluster = {"server": server, "certificate-authority-data": _base64(self.ca)}
        user = {"client-certificate-data": _base64(pair[0]), "client-key-data": _base64(pair[1])}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "snowmelt", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "snowmelt", "context": {"cluster": "snowmelt", "user": name}}],
            "current-context": "snowmelt",
        }
        return write_secret(self.folder / f"{name}.kubeconfig", yaml.safe_dump(document, sort_keys=False))


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
