"""The part of KubeRay that makes pods, and of the kubelet that writes their status and hands out logs: no pods run.

The pods are made from the templates of the real RayJob; their status is what kubelets write (tests/unit/pods).
"""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hack.kube import ControlPlane
from hack.kube.pki import Authority
from tests.controlplane.api import Api, Object

NODE = "node-1"


class PodsStandIn:
    """Makes the pods of RayJobs in one namespace, and says how they are."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def made(self, rayjob: str, role: str = "head", **status: Any) -> str:
        """A pod from the RayJob's template for `head`, `workers` or `submitter`; returns its name."""
        template = _template(self._api.until("rayjobs", rayjob, lambda _: True), role)
        name = f"{rayjob}-{role}-x1"
        metadata = {"name": name, "labels": template["metadata"]["labels"] | {"ray.io/node-type": role}}
        spec = {"restartPolicy": "Always", "nodeName": NODE} | template["spec"]
        self._api.create("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        if status:
            self.says(name, **status)
        return name

    def says(self, name: str, **status: Any) -> None:
        """Write the status, as its kubelet would."""
        self._api.patch("pods", name, {"status": status}, subresource="status")

    def warns(self, name: str, reason: str, note: str) -> None:
        """The kubelet records a Warning Event about the pod."""
        pod = self._api.until("pods", name, lambda _: True)["metadata"]
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": pod["namespace"], "name": name, "uid": pod["uid"]}
        self._records("kubelet", about, reason, note)

    def refuses_the_submitter_of(self, rayjob: str, note: str) -> None:
        """The Job controller records that the API server takes no pod of KubeRay's Job (named as the RayJob)."""
        namespace = self._api.until("rayjobs", rayjob, lambda _: True)["metadata"]["namespace"]
        about = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "namespace": namespace,
            "name": rayjob,
            "uid": f"job-{rayjob}",
        }
        self._records("job-controller", about, "FailedCreate", note)

    def _records(self, reporter: str, about: dict[str, str], reason: str, note: str) -> None:
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{about['name']}.{about['uid'][:8]}", "namespace": about["namespace"]},
            "eventTime": "2026-11-24T12:00:00.000000Z",
            "reportingController": reporter,
            "reportingInstance": NODE,
            "action": "Start",
            "reason": reason,
            "type": "Warning",
            "note": note,
            "regarding": about,
        }
        self._api.create("events", event)

    def vanishes(self, name: str) -> None:
        """The pod is deleted, and its kubelet has let it go."""
        self._api.delete("pods", name, grace_seconds=0)
        self._api.until_gone("pods", name)


def _template(rayjob: Object, role: str) -> Object:
    spec = rayjob["spec"]
    templates: dict[str, Object] = {
        "head": spec["rayClusterSpec"]["headGroupSpec"]["template"],
        "workers": spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"],
        "submitter": spec["submitterPodTemplate"],
    }
    return templates[role]


class KubeletStandIn:
    """Answers the API server's requests for logs over TLS, with what `logs` has for a pod's name."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.logs: dict[str, str] = {}
        self.asked: list[str] = []
        certificate, key = Authority(directory).issue("kubelet")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._plane = plane

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        self._plane.kubectl("apply", "-f", "-", stdin=json.dumps(node))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_address[1]}},
        }
        patch = json.dumps({"status": status})
        self._plane.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(kubelet: KubeletStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kubelet.asked.append(self.path)
            _, kind, _, pod, *_ = self.path.split("/")
            known = kubelet.logs.get(pod) if kind == "containerLogs" else None
            content = (known or "").encode()
            self.send_response(404 if known is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's signature
            pass

    return Handler
