"""Where the control plane's binaries come from, and what is said when they come from nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hack.kube import BinariesMissingError, ControlPlane, find_binaries
from hack.kube.gobuild import build

REPOSITORY = Path(__file__).parents[2]


def kube(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "KUBEBUILDER_ASSETS"}
    command = [sys.executable, "-m", "hack.kube", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=kept | environment, capture_output=True, text=True, check=False)


def test_without_go_and_binaries_one_line_says_what_to_install(tmp_path: Path) -> None:
    ended = kube("binaries", PATH="/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "install Go >= 1.26" in line
    assert "KUBEBUILDER_ASSETS" in line


def test_these_tests_fail_and_are_not_skipped_without_go_and_binaries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/controlplane/test_rayjobs.py"]
    kept = {name: value for name, value in os.environ.items() if name != "KUBEBUILDER_ASSETS"}
    environment = kept | {"PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "install Go >= 1.26" in ended.stdout
    assert "skipped" not in ended.stdout


def test_binaries_that_are_given_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: ControlPlane) -> None:
    for binary in (plane.binaries.kube_apiserver, plane.binaries.etcd, plane.binaries.kubectl):
        (tmp_path / binary.name).symlink_to(binary)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert find_binaries().kube_apiserver == tmp_path / "kube-apiserver"


def test_a_given_folder_that_lacks_a_binary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(BinariesMissingError, match="lacks kube-apiserver and etcd"):
        find_binaries()


def test_a_build_that_fails_leaves_no_binary_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOFLAGS", "-compiler=nonsense")
    with pytest.raises(BinariesMissingError, match="go"):
        build("etcd", "go.etcd.io/etcd/server/v3", tmp_path / "etcd", ldflags="")
    assert not (tmp_path / "etcd").exists()


def test_two_control_planes_run_side_by_side(plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane(tmp_path, binaries=plane.binaries) as other:
        other.kubectl("create", "namespace", "only-here")
        assert "only-here" in other.kubectl("get", "namespaces")
        assert "only-here" not in plane.kubectl("get", "namespaces")
    assert other.etcd.exit_status is not None
    assert other.apiserver.exit_status is not None


def test_a_restarted_api_server_keeps_its_address_and_its_objects(plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane(tmp_path, binaries=plane.binaries) as other:
        other.kubectl("create", "namespace", "kept")
        url = other.url
        other.stop_apiserver()
        other.start_apiserver()
        assert other.url == url
        assert "kept" in other.kubectl("get", "namespaces")


@pytest.mark.parametrize(
    ("user", "request_"),
    [
        ("alice", ("patch", "finetunejobs.snowmelt.dev", "--subresource=status")),
        ("alice", ("get", "secrets")),
        ("operator", ("list", "secrets")),
        ("operator", ("create", "finetunejobs.snowmelt.dev")),
        ("operator", ("create", "pods")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_this_user_may_not(user: str, request_: tuple[str, ...], plane: ControlPlane) -> None:
    kubectl: list[str | Path] = [plane.binaries.kubectl, "--kubeconfig", plane.kubeconfig(user)]
    command = [*kubectl, "auth", "can-i", *request_]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "no"
