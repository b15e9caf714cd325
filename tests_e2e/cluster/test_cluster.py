"""The cluster is a real one: nodes, names, volumes, rights, KubeRay; and it goes without a trace. In this order."""

from __future__ import annotations

import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from hack.kube.cluster import Cluster
from hack.kube.controlplane import ControlPlaneError, eventually
from hack.kube.kubectl import Kubectl
from tests_e2e.cluster.pods import apply, finish, phase, shell

NODES = ("node-1", "node-2")
GREETING = "hello from"


def other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


def ready(cluster: Cluster, node: str) -> bool:
    conditions = cluster.kubectl().get("node", node)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def test_every_node_is_ready_and_up_again_changes_nothing(cluster: Cluster) -> None:
    before = {part: cluster.parts.pids(part) for part in cluster.parts.known()}
    cluster.up(nodes=2)
    assert {part: cluster.parts.pids(part) for part in cluster.parts.known()} == before
    assert all(ready(cluster, node) for node in NODES)


@pytest.mark.parametrize("node", NODES)
def test_a_pod_reaches_a_service_on_the_other_node_by_name(cluster: Cluster, node: str) -> None:
    server = f"web-{other(node)}"
    serve = f"exec /bin/busybox nc -ll -p 8080 -e /bin/busybox echo {GREETING} {other(node)}"
    pod = shell(server, other(node), serve)
    pod["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    service = {"selector": {"app": server}, "ports": [{"port": 80, "targetPort": 8080}]}
    apply(cluster, pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": server}, "spec": service})
    name = f"{server}.default.svc.cluster.local"
    # Attempts that come before the node knows of the service are refused.
    ask = f"until /bin/busybox nc -w 3 {name} 80 < /dev/null 2> /dev/null; do /bin/busybox sleep 1; done"
    assert finish(cluster, shell(f"client-on-{node}", node, ask)) == ("Succeeded", f"{GREETING} {other(node)}\n")


def test_a_claim_is_seen_from_both_nodes_by_any_user_and_goes_with_its_folder(cluster: Cluster) -> None:
    apply(cluster, claim("shared"))
    write = shell("writer", "node-1", "echo written by $(/bin/busybox id -u) > /data/note", claim="shared")
    assert finish(cluster, write)[0] == "Succeeded"
    read = shell("reader", "node-2", "/bin/busybox cat /data/note", claim="shared")
    assert finish(cluster, read) == ("Succeeded", "written by 1000\n")
    (folder,) = cluster.volumes.iterdir()
    cluster.kubectl()("delete", "pod/writer", "pod/reader", "pvc/shared")
    eventually(lambda: not folder.exists(), "the folder of a deleted claim stays")


def test_a_pod_finds_no_way_out_of_the_machine(cluster: Cluster) -> None:
    with socket.create_server(("", 0)) as server:
        here = next(address for address in _addresses_of_the_host() if address)
        ask = f"/bin/busybox nc -w 3 {here} {server.getsockname()[1]} < /dev/null && echo got out"
        answer, said = finish(cluster, shell("escape", "node-1", ask))
    assert answer == "Failed"
    assert "can't connect to remote host" in said


def _addresses_of_the_host() -> list[str]:
    routes = Path("/proc/net/fib_trie").read_text()
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", routes)
    return [address for address in found if not address.startswith("127.")]


def test_a_kubelet_is_denied_what_its_pods_do_not_use(cluster: Cluster) -> None:
    kubelet = Kubectl(cluster.kubectl().binary, cluster.directory / "pki" / "node-1.kubeconfig")
    server = cluster.kubectl()("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert kubelet("--server", server, "get", "node", "node-1", "-o", "name").strip() == "node/node-1"
    for refused in (("get", "secrets", "-A"), ("label", "node", "node-2", "mine=yes")):
        with pytest.raises(ControlPlaneError, match="orbidden"):
            kubelet("--server", server, *refused)


def test_without_a_certificate_the_api_server_answers_nothing(cluster: Cluster) -> None:
    server = cluster.kubectl()("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    trust = ssl.create_default_context(cafile=str(cluster.directory / "pki" / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server}/api", context=trust)
    assert refused.value.code == 401


def test_kuberay_runs_and_acts_on_a_rayjob(cluster: Cluster) -> None:
    pod = {"spec": {"containers": [{"name": "ray", "image": "localhost/none:1"}]}}
    head = {"rayStartParams": {}, "template": pod}
    spec = {"suspend": True, "entrypoint": "true", "shutdownAfterJobFinishes": True}
    rayjob = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "suspended"},
        "spec": spec | {"rayClusterSpec": {"headGroupSpec": head}},
    }
    apply(cluster, rayjob)
    get = cluster.kubectl().get
    eventually(
        lambda: get("rayjob", "suspended").get("status", {}).get("jobDeploymentStatus") == "Suspended",
        "KubeRay does not act on a RayJob",
    )
    cluster.kubectl()("delete", "rayjob", "suspended")


def test_the_settings_of_this_machines_kernel_are_left_alone(cluster: Cluster) -> None:
    """A kubelet insists on vm.overcommit_memory=1; a machine that has another value must keep it."""
    inside = cluster.nodes[0].machine.run("cat", "/proc/sys/vm/overcommit_memory").strip()
    assert inside == "1"
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "/proc/sys/vm/overcommit_memory" not in mounts


def test_a_part_that_was_killed_is_missed_and_comes_back(cluster: Cluster) -> None:
    cluster.stop("control-plane/kube-scheduler")
    with pytest.raises(ControlPlaneError, match="without control-plane/kube-scheduler"):
        cluster.up(nodes=2)
    cluster.start("control-plane/kube-scheduler")
    cluster.up(nodes=2)


def test_a_node_whose_plug_was_pulled_is_lost_and_comes_back(cluster: Cluster) -> None:
    cluster.stop("node-2")
    eventually(lambda: not ready(cluster, "node-2"), "nobody misses the node", within_s=60)
    cluster.start("node-2")
    eventually(lambda: ready(cluster, "node-2"), "the node does not come back", within_s=60)
    assert finish(cluster, shell("after", "node-2", "echo back"))[1] == "back\n"
    assert phase(cluster, "after") == "Succeeded"


def test_down_leaves_nothing_behind(cluster: Cluster) -> None:
    assert cluster.leftovers()
    names = Path("/proc/self/mountinfo").read_text(), sorted(Path("/sys/class/net").iterdir())
    cluster.down()
    assert cluster.leftovers() == []
    assert not cluster.directory.exists()
    assert (Path("/proc/self/mountinfo").read_text(), sorted(Path("/sys/class/net").iterdir())) == names
    cluster.down()
