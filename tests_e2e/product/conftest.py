"""One real cluster with the product on it, for all tests of this folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.images import ImagesError, build_images
from hack.images.build import images_folder
from hack.kube import BinariesMissingError
from hack.kube.cluster import Cluster, RequirementsError
from tests_e2e.product import evidence
from tests_e2e.product.borrowed import NotUsableError, borrowed
from tests_e2e.product.measured import Measured
from tests_e2e.product.world import REPOSITORY, Namespace, World

KEPT = "SNOWMELT_E2E_CLUSTER"
"""Names a folder for the cluster, which then stays up afterwards, for the next run: `make cluster-down` ends it."""
OUT = REPOSITORY / "out" / "e2e"


YOURS = "SNOWMELT_E2E_KUBECONFIG"
"""Names the kubeconfig of a cluster of the reader's own; without it a cluster is made."""
SPARED = "it breaks parts of the cluster, or what other work there needs: it is done only to a cluster made for it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(1800))
            if os.environ.get(YOURS) and item.get_closest_marker("breaks"):
                item.add_marker(pytest.mark.skip(reason=SPARED))


@pytest.fixture(scope="session", autouse=True)
def _ended_like_a_ctrl_c() -> None:
    """So that the cluster goes down when a test run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    workspace = tmp_path_factory.mktemp("product")
    yours = os.environ.get(YOURS)
    try:
        with borrowed(Path(yours), workspace) if yours else made(workspace) as world:
            yield world
    except (BinariesMissingError, RequirementsError, ImagesError, NotUsableError) as error:
        pytest.fail(str(error), pytrace=False)


@contextmanager
def made(workspace: Path) -> Iterator[World]:
    """On a cluster made for it."""
    kept = os.environ.get(KEPT)
    # Beside the images, which nodes then have as hard links: /tmp may be another disk, or memory.
    cluster = Cluster(Path(kept) if kept else images_folder() / f"cluster-{os.getpid()}")
    try:
        images = build_images()
        cluster.up(nodes=2, seed=images.seed())
        yield World.on(cluster, images, workspace)
    finally:
        if not kept:
            cluster.down()


@pytest.fixture
def namespace(world: World, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own; it is deleted afterwards, and what explains a failure is kept before."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    # The cases of one test begin alike, and the last one's namespace may be on its way out.
    name = f"{words}-{zlib.crc32(request.node.nodeid.encode()):08x}"
    folder = OUT / request.node.name
    shutil.rmtree(folder, ignore_errors=True)
    namespace = world.namespace(name)
    yield namespace
    if request.session.stash.get(_FAILED, set()) & {request.node.nodeid}:
        evidence.keep(world, [name], folder)
        print(f"what explains the failure lies in {folder}")
    namespace.delete()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes figures; they are kept in out/e2e/measured.jsonl, of all runs."""
    return Measured(request.node.name, OUT / "measured.jsonl")


_FAILED = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.session.stash.setdefault(_FAILED, set()).add(item.nodeid)
    return report
