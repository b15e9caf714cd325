"""Whether a cluster can run here is found out by trying, with nothing left of the trials."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hack.kube.__main__ import CANNOT
from hack.kube.cluster import cgroups
from hack.kube.cluster.probe import probe

WITHOUT = {
    "sys_admin": ["namespaces of network, mounts and processes"],
    "net_admin": ["a bridge between nodes", "a wire between nodes", "forwarding of packets", "rules for packets"],
}


def test_this_machine_can_and_nothing_stays(tmp_path: Path) -> None:
    probe(tmp_path / "cluster")
    assert list(tmp_path.iterdir()) == []
    assert cgroups.left("snowmelt-probe") == []


@pytest.mark.parametrize("capability", WITHOUT)
def test_root_without_a_capability_is_told_what_it_may_not(tmp_path: Path, capability: str) -> None:
    without = ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
    command = [sys.executable, "-m", "hack.kube", "cluster-check", "--directory", tmp_path / "cluster"]
    done = subprocess.run([*without, *command], capture_output=True, text=True, check=False)
    assert done.returncode == CANNOT
    refused = [line.partition(":")[0].removeprefix("  - ") for line in done.stderr.splitlines()[1:]]
    assert refused == WITHOUT[capability]
