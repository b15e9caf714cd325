"""A real control plane for the whole folder, and a namespace of its own for each test."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kube import BinariesMissingError, ControlPlane, find_binaries, kuberay_crds
from hack.localoperator import LocalOperator
from tests.controlplane.api import Api
from tests.controlplane.kuberay_standin import KubeRayStandIn
from tests.controlplane.operators import Served, kuberay_operator

REPOSITORY = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session", autouse=True)
def _ended_like_a_ctrl_c() -> None:
    """So that fixtures clean up when a test run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with Snowmelt's and KubeRay's real CRDs and the operator's RBAC."""
    try:
        binaries, rayjob_crds = (
            find_binaries(),
            [file for file in kuberay_crds() if file.stem.endswith(("rayjobs", "rayclusters"))],
        )
    except BinariesMissingError as error:
        pytest.fail(str(error), pytrace=False)
    with ControlPlane(tmp_path_factory.mktemp("kube"), binaries=binaries, audit=True) as plane:
        install(plane, rayjob_crds)
        yield plane


def install(plane: ControlPlane, kuberay: list[Path]) -> None:
    plane.install_crds(*sorted((REPOSITORY / "crds").glob("*.yaml")), *kuberay)
    plane.kubectl("apply", "-f", REPOSITORY / "hack/kube/rbac.yaml")


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace named after the test; the same in each run."""
    name = f"test-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:10]}"
    plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="module")
def served(
    plane: ControlPlane, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A namespace for one file's tests, and the operator with the KubeRay launcher that serves it."""
    name = request.node.path.stem.replace("_", "-")
    plane.kubectl("create", "namespace", name)
    api = Api(plane, name)
    with kuberay_operator(plane, name, tmp_path_factory.mktemp(name) / "operator.log") as operator:
        yield Served(api, KubeRayStandIn(api), operator)
    api.close()


@pytest.fixture
def api(plane: ControlPlane, namespace: str) -> Iterator[Api]:
    client = Api(plane, namespace)
    yield client
    client.close()


@pytest.fixture
def kuberay(api: Api) -> KubeRayStandIn:
    return KubeRayStandIn(api)


@pytest.fixture
def make_operator(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Callable[..., LocalOperator]]:
    """Makes operators with the KubeRay launcher for this test's namespace, not started yet; stops them in the end."""
    made: list[LocalOperator] = []

    def make(**settings: str | Path) -> LocalOperator:
        made.append(kuberay_operator(plane, namespace, tmp_path / f"operator-{len(made)}.log", **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def operator(make_operator: Callable[..., LocalOperator]) -> LocalOperator:
    """A running operator with the KubeRay launcher."""
    started = make_operator()
    started.start()
    return started
