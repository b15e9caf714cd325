"""helm for the whole folder, and for the tests that want one an API server with strict admission."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kube import BinariesMissingError, ControlPlane, kuberay_crds
from hack.kube.binaries import find_helm
from hack.kube.helm import Helm

REPOSITORY = Path(__file__).parents[2]
ADMISSION = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"
"""Off by default and on in some distributions: it asks for more rights of whoever sets owner references."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.helm)
            if {"plane", "fresh_plane"} & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session", autouse=True)
def _ended_like_a_ctrl_c() -> None:
    """So that fixtures clean up when a test run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    try:
        return find_helm()
    except BinariesMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(helm_binary, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the CRDs of Snowmelt and KubeRay."""
    with _control_plane(tmp_path_factory.mktemp("kube")) as plane:
        plane.install_crds(*sorted((REPOSITORY / "crds").glob("*.yaml")))
        yield plane


@pytest.fixture
def fresh_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of this test's own, on which Snowmelt was never installed."""
    with _control_plane(tmp_path / "kube") as plane:
        yield plane


@contextmanager
def _control_plane(folder: Path) -> Iterator[ControlPlane]:
    try:
        with ControlPlane(folder, audit=True, apiserver_args=[ADMISSION]) as plane:
            plane.install_crds(*[file for file in kuberay_crds() if file.stem.endswith(("rayjobs", "rayclusters"))])
            yield plane
    except BinariesMissingError as error:
        pytest.fail(str(error), pytrace=False)
