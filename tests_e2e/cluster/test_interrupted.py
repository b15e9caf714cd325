"""A cluster whose making is cut off at any moment leaves nothing that `cluster-down` does not remove."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hack.kube.cluster import Cluster
from hack.kube.controlplane import ControlPlaneError, eventually

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("seen", ["control-plane/etcd", "node-1/kubelet"])
def test_down_ends_what_a_killed_up_had_started(seen: str, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "half")
    command = [sys.executable, "-m", "hack.kube", "cluster-up", "--nodes=1", f"--directory={cluster.directory}"]
    up = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        eventually(lambda: bool(cluster.parts.pids(seen)), f"{seen} is not started", within_s=240)
    finally:
        up.kill()
        up.wait()
    assert cluster.leftovers()
    cluster.down()
    assert cluster.leftovers() == []
    assert not cluster.directory.exists()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ControlPlaneError, match="holds other files"):
        Cluster(tmp_path).up()
    Cluster(tmp_path).down()
    assert (tmp_path / "mine").read_text() == "mine"
