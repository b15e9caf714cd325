"""etcd and kube-apiserver on loopback: enough for CRDs, CEL, RBAC, watches and kubectl.

No pods run, so there is no controller-manager either. Everything lies in one folder: keys, kubeconfigs, logs, etcd's
data. TLS everywhere and tokens for users, because others may be logged in on the same machine. Two control planes side
by side do not meet.
"""

from __future__ import annotations

import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hack.kube.binaries import Binaries, find_binaries
from hack.kube.kubectl import ControlPlaneError, Kubectl, eventually
from hack.kube.pki import Authority, write_key
from hack.kube.processes import ReservedPort, Service, Startable

__all__ = ["USERS", "ControlPlane", "ControlPlaneError", "eventually", "write_secret"]

READY_WITHIN_S = 60.0
USERS = {"admin": "system:masters", "operator": "snowmelt:operators", "alice": "snowmelt:users"}
"""User names, and the group each is in; what `operator` and `alice` may do is said by hack/kube/rbac.yaml."""
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane(Startable):
    """A control plane in `directory`, which is made when absent. A context manager; or call `start` and `stop`.

    `apiserver_args` are added to kube-apiserver's command line; with `audit=True` each request is logged as one JSON
    line to `audit_log`.

    Raises:
        BinariesMissingError: from the constructor, when there are no binaries and no Go to build them.
        ControlPlaneError: from `start`, when a server ends or is not ready within a minute.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        audit: bool = False,
        apiserver_args: Sequence[str] = (),
    ) -> None:
        self.binaries = binaries or find_binaries()
        self.directory = directory.resolve()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.audit_log = self.directory / "audit.jsonl"
        self._audit = audit
        self._apiserver_args = tuple(apiserver_args)
        self._tokens = {user: secrets.token_urlsafe(32) for user in USERS}
        self._authority = Authority(self.directory / "pki")
        self._etcd_ports = (ReservedPort(), ReservedPort())
        self._port = ReservedPort()
        self.url = f"https://127.0.0.1:{self._port.number}"
        self.etcd = self._etcd_service()
        self.apiserver = self._apiserver_service()

    @property
    def ca_file(self) -> Path:
        return self._authority.file

    def start(self) -> None:
        """Start both servers, wait until the API server is ready, and write the users' kubeconfigs."""
        for user in USERS:
            self._write_kubeconfig(user)
        self.etcd.start()
        self.start_apiserver()

    def stop(self) -> None:
        """End both servers and give the ports back. Idempotent; the folder stays."""
        self.apiserver.stop()
        self.etcd.stop()
        for port in (*self._etcd_ports, self._port):
            port.release()

    def start_apiserver(self) -> None:
        """Start the API server on its port, which stays reserved while it is stopped, and wait until it is ready."""
        self.apiserver.start()
        eventually(self._is_ready, f"kube-apiserver is not ready; its log is {self.apiserver.log}", READY_WITHIN_S)

    def stop_apiserver(self) -> None:
        """End the API server; connections are refused until `start_apiserver`. etcd keeps all objects."""
        self.apiserver.stop()

    def kubeconfig(self, user: str = "admin") -> Path:
        """The kubeconfig of `user`, one of USERS."""
        return self.directory / f"{user}.kubeconfig"

    def token(self, user: str = "admin") -> str:
        """The bearer token of `user`."""
        return self._tokens[user]

    def kubectl(self, *arguments: str | Path, user: str = "admin", stdin: str | None = None) -> str:
        """Run kubectl as `user` and return what it printed.

        Raises:
            ControlPlaneError: kubectl failed; the message is what it wrote to stderr.
        """
        return Kubectl(self.binaries.kubectl, self.kubeconfig(user))(*arguments, stdin=stdin)

    def get(self, *arguments: str, user: str = "admin") -> Any:
        """What `kubectl get ARGUMENTS -o json` says, parsed."""
        return Kubectl(self.binaries.kubectl, self.kubeconfig(user)).get(*arguments)

    def install_crds(self, *files: Path) -> None:
        """Apply CRDs (server-side: KubeRay's are too large for an annotation) and wait until they are served."""
        Kubectl(self.binaries.kubectl, self.kubeconfig()).install_crds(*files)

    def _is_ready(self) -> bool:
        for service in (self.etcd, self.apiserver):
            if not service.runs:
                raise ControlPlaneError(
                    f"{service.name} ended; its log {service.log} closes with:\n{service.last_words()}"
                )
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {self._tokens['admin']}"}
        )
        context = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _etcd_service(self) -> Service:
        client, peer = (f"https://127.0.0.1:{port.number}" for port in self._etcd_ports)
        certificate, key = self._authority.issue("etcd")
        ca = self.ca_file
        command: list[str | Path] = [
            self.binaries.etcd, "--name=snowmelt", f"--data-dir={self.directory / 'etcd'}", "--socket-reuse-port",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=snowmelt={peer}",
            "--client-cert-auth", f"--trusted-ca-file={ca}", f"--cert-file={certificate}", f"--key-file={key}",
            "--peer-client-cert-auth", f"--peer-trusted-ca-file={ca}",
            f"--peer-cert-file={certificate}", f"--peer-key-file={key}",
            # Nothing here outlives the machine, so its disk need not be waited for.
            "--unsafe-no-fsync", "--log-level=warn",
        ]  # fmt: skip
        return Service("etcd", command, self.directory / "etcd.log")

    def _apiserver_service(self) -> Service:
        certificate, key = self._authority.issue("kube-apiserver")
        signing_key = write_key(self.directory / "pki" / "service-account.key")
        command: list[str | Path] = [
            self.binaries.kube_apiserver, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self._port.number}", "--permit-port-sharing",
            f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            f"--etcd-servers=https://127.0.0.1:{self._etcd_ports[0].number}",
            f"--etcd-cafile={self.ca_file}", f"--etcd-certfile={certificate}", f"--etcd-keyfile={key}",
            f"--token-auth-file={self._write_tokens()}", "--authorization-mode=RBAC", "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={signing_key}",
            f"--service-account-signing-key-file={signing_key}", "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none", "--profiling=false", "--shutdown-delay-duration=0s",
            *(self._audit_arguments() if self._audit else ()), *self._apiserver_args,
        ]  # fmt: skip
        return Service("kube-apiserver", command, self.directory / "kube-apiserver.log")

    def _audit_arguments(self) -> tuple[str, ...]:
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        return (f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}", "--audit-log-maxsize=1000")

    def _write_tokens(self) -> Path:
        lines = (f'{token},{user},{user},"{USERS[user]}"\n' for user, token in self._tokens.items())
        return write_secret(self.directory / "pki" / "tokens.csv", "".join(lines))

    def _write_kubeconfig(self, user: str) -> None:
        self.write_kubeconfig(self.kubeconfig(user), user, self._tokens[user])

    def write_kubeconfig(self, path: Path, user: str, token: str) -> Path:
        """Write a kubeconfig with a bearer token to `path`, for instance of a service account; `user` is but a name."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "snowmelt", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": user, "context": {"cluster": "snowmelt", "user": user, "namespace": "default"}}],
            "current-context": user,
        }
        return write_secret(path, yaml.safe_dump(document, sort_keys=False))


def write_secret(path: Path, text: str) -> Path:
    """A file that its owner alone can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
