"""A real cluster of two nodes for the tests of a file."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.kube import BinariesMissingError
from hack.kube.cluster import Cluster, RequirementsError
from hack.kube.cluster.oci import write_image

BUSYBOX = "localhost/snowmelt/busybox:1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session", autouse=True)
def _ended_like_a_ctrl_c() -> None:
    """So that the cluster goes down when a test run is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="module")  # one file's last test takes it down
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose nodes have an image with a shell."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "two-nodes")
    try:
        cluster.up(nodes=2)
        cluster.load(_busybox(tmp_path_factory.mktemp("images") / "busybox.tar"))
        yield cluster
    except (BinariesMissingError, RequirementsError) as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        cluster.down()


def _busybox(archive: Path) -> Path:
    binary = shutil.which("busybox")
    if binary is None:
        pytest.fail("these tests need a static busybox: apt-get install busybox-static", pytrace=False)
    write_image(archive, BUSYBOX, {"/bin/busybox": Path(binary)}, entrypoint=["/bin/busybox"], user="1000:1000")
    return archive
