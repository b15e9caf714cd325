"""A machine that cannot run a cluster is told all reasons at once, and what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hack.kube.cluster import RequirementsError, requirements


@pytest.fixture(autouse=True)
def _a_bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "CNI_FOLDERS", (tmp_path,))


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError) as refused:
        requirements.check(tmp_path)
    (line,) = (line for line in str(refused.value).splitlines() if "apt-get install" in line)
    for package in ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "iproute2"):
        assert package in line.partition("apt-get install")[2].split()


def test_who_is_not_root_is_told_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RequirementsError, match="need root: run it with sudo"):
        requirements.check()


def test_another_system_is_told_that_it_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RequirementsError, match="use a Linux machine, or your own cluster"):
        requirements.check()


def test_a_folder_that_nodes_cannot_see_is_refused() -> None:
    with pytest.raises(RequirementsError, match="/var/lib/somewhere lies below /var/lib"):
        requirements.check(Path("/var/lib/somewhere"))


def test_no_complaint_about_a_machine_that_has_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for command in {*requirements.PACKAGES, *requirements.CNI_PLUGINS}:
        (tmp_path / command).touch(mode=0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    requirements.check(Path("/srv/cluster"))
