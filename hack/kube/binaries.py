"""Where kube-apiserver, etcd, kubectl, helm and KubeRay's CRDs come from.

KUBEBUILDER_ASSETS first, then the cache outside the checkout, then `go build` of the versions that hack/kube/modules
pins. A kubectl found on PATH is not used: kubectl is supported one minor version from its API server, no farther.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hack.kube.gobuild import MODULES, BinariesMissingError, build, exclusively, go_command, required_version

__all__ = [
    "Binaries",
    "BinariesMissingError",
    "ClusterBinaries",
    "find_binaries",
    "find_cluster_binaries",
    "find_helm",
    "find_kueue",
    "kuberay_config",
    "kuberay_crds",
    "kueue_chart",
]

KUBERNETES = required_version("kubernetes", "k8s.io/kubernetes")
ETCD = required_version("etcd", "go.etcd.io/etcd/server/v3")
KUBERAY_MODULE = "github.com/ray-project/kuberay/ray-operator"
KUBERAY = required_version("kuberay", KUBERAY_MODULE)
COREDNS_MODULE = "github.com/coredns/coredns"
COREDNS = required_version("coredns", COREDNS_MODULE)
KUEUE_MODULE = "sigs.k8s.io/kueue"
KUEUE = required_version("kueue", KUEUE_MODULE)
HELM_MODULE = "helm.sh/helm/v3"
HELM = required_version("helm", HELM_MODULE)

_VERSION_PACKAGE = "k8s.io/component-base/version"
_MAJOR, _MINOR = KUBERNETES.removeprefix("v").split(".")[:2]
_KUBERNETES_LDFLAGS = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES}"
    f" -X {_VERSION_PACKAGE}.gitMajor={_MAJOR} -X {_VERSION_PACKAGE}.gitMinor={_MINOR}"
)
_HELM_LDFLAGS = f"-s -w -X {HELM_MODULE}/internal/version.version={HELM} " + " ".join(
    # What `helm template` and `helm lint` take for the cluster's version.
    f"-X {HELM_MODULE}/{package}.k8sVersionMajor={_MAJOR} -X {HELM_MODULE}/{package}.k8sVersionMinor={_MINOR}"
    for package in ("pkg/chartutil", "pkg/lint/rules")
)


@dataclass(frozen=True)
class Binaries:
    """Paths of the commands of one control plane."""

    kube_apiserver: Path
    etcd: Path
    kubectl: Path


@dataclass(frozen=True)
class ClusterBinaries:
    """Paths of the commands of a whole cluster; the last two run inside pods, from images of their own."""

    control_plane: Binaries
    kube_controller_manager: Path
    kube_scheduler: Path
    kubelet: Path
    kube_proxy: Path
    coredns: Path
    kuberay_operator: Path
    pause: Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/snowmelt/kube`, or the same under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snowmelt" / "kube"


def find_binaries() -> Binaries:
    """The binaries, built when they are neither given nor cached (the first time takes minutes and says so on stderr).

    Raises:
        BinariesMissingError: KUBEBUILDER_ASSETS names a folder that lacks one, or Go is needed and missing.
    """
    cache = cache_folder() / f"{KUBERNETES}-{ETCD}"
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return Binaries(_cached(cache, "kube-apiserver"), _cached(cache, "etcd"), _cached(cache, "kubectl"))
    given = Path(assets)
    missing = [name for name in ("kube-apiserver", "etcd") if not os.access(given / name, os.X_OK)]
    if missing:
        raise BinariesMissingError(
            f"KUBEBUILDER_ASSETS={assets} lacks {' and '.join(missing)}: correct it, or unset it to build them"
        )
    kubectl = given / "kubectl"
    return Binaries(
        given / "kube-apiserver", given / "etcd", kubectl if os.access(kubectl, os.X_OK) else _cached(cache, "kubectl")
    )


def find_cluster_binaries() -> ClusterBinaries:
    """What `find_binaries` finds, and all that nodes need besides; what is neither given nor cached is built.

    Raises:
        BinariesMissingError: as `find_binaries` does.
    """
    cache = cache_folder()
    kubernetes = cache / f"{KUBERNETES}-{ETCD}"
    return ClusterBinaries(
        control_plane=find_binaries(),
        kube_controller_manager=_cached(kubernetes, "kube-controller-manager"),
        kube_scheduler=_cached(kubernetes, "kube-scheduler"),
        kubelet=_cached(kubernetes, "kubelet"),
        kube_proxy=_cached(kubernetes, "kube-proxy"),
        coredns=_cached(cache / f"coredns-{COREDNS}", "coredns"),
        kuberay_operator=_cached(cache / f"kuberay-operator-{KUBERAY}", "kuberay-operator"),
        pause=_cached(kubernetes, "pause"),
    )


def find_helm() -> Path:
    """The helm command of the pinned version, built when it is not cached (about two minutes).

    Raises:
        BinariesMissingError: it is not cached, and Go is missing or cannot get its modules.
    """
    return _cached(cache_folder() / f"helm-{HELM}", "helm")


def kuberay_config() -> Path:
    """The folder of manifests that KubeRay's Go module ships: crd, rbac, manager, and `default`, which joins them.

    Raises:
        BinariesMissingError: they are not cached and Go is missing or cannot get the module.
    """
    return _cached_part("kuberay", KUBERAY_MODULE, "config", cache_folder() / f"kuberay-config-{KUBERAY}")


def kuberay_crds() -> list[Path]:
    """KubeRay's CRDs as its Go module ships them, one file each; raises as `kuberay_config` does."""
    return sorted((kuberay_config() / "crd" / "bases").glob("*.yaml"))


def find_kueue() -> Path:
    """Kueue's manager, built when it is not cached (about three minutes); raises as `find_helm` does."""
    return _cached(cache_folder() / f"kueue-{KUEUE}", "kueue")


def kueue_chart() -> Path:
    """The Helm chart that Kueue's Go module ships; raises as `kuberay_config` does."""
    return _cached_part("kueue", KUEUE_MODULE, "charts/kueue", cache_folder() / f"kueue-chart-{KUEUE}")


def _cached_part(module: str, name: str, part: str, folder: Path) -> Path:
    if not folder.is_dir():
        with exclusively(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _place_part(module, name, part, folder)
    return folder


def _cached(cache: Path, name: str) -> Path:
    target = cache / name
    if not target.exists():
        with exclusively(cache / f".{name}.lock"):
            if not target.exists():
                _build(name, target)
    return target


def _build(name: str, target: Path) -> None:
    match name:
        case "etcd":
            build("etcd", "go.etcd.io/etcd/server/v3", target, ldflags="-s -w", version=ETCD)
        case "coredns":
            build("coredns", COREDNS_MODULE, target, ldflags="-s -w", version=COREDNS)
        case "kuberay-operator":
            build("kuberay", KUBERAY_MODULE, target, ldflags="-s -w", version=KUBERAY)
        case "kueue":
            build("kueue", f"{KUEUE_MODULE}/cmd/kueue", target, ldflags="-s -w", version=KUEUE)
        case "helm":
            build("helm", f"{HELM_MODULE}/cmd/helm", target, ldflags=_HELM_LDFLAGS, version=HELM)
        case "pause":
            build("pause", "snowmelt.dev/hack/kube/pause", target, ldflags="-s -w")
        case _:
            build(
                "kubernetes", f"k8s.io/kubernetes/cmd/{name}", target, ldflags=_KUBERNETES_LDFLAGS, version=KUBERNETES
            )


def _place_part(module: str, name: str, part: str, folder: Path) -> None:
    """A copy of the folder `part` of the Go module `name`, which hack/kube/modules/`module` pins."""
    download = subprocess.run(
        [go_command(), "mod", "download", "-json", name],
        cwd=MODULES / module, capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(download.stdout or "{}")
    if download.returncode != 0 or "Dir" not in answer:
        raise BinariesMissingError(f"go cannot get {name}: {answer.get('Error') or download.stderr.strip()}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as workspace:
        copy = Path(workspace) / folder.name
        # Go's module cache is read-only; a copy that is not can be replaced and removed.
        shutil.copytree(Path(answer["Dir"]) / part, copy, copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        copy.rename(folder)
