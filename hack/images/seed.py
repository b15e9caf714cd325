"""A containerd root that has the images already, to be shared by nodes.

Gigabytes are unpacked once a machine, not once a node and a run: a node's own root begins as hard links to the seed's
files, and the layout's blobs are links to them too. That is safe because neither containerd nor overlayfs nor skopeo
ever writes into a layer or a blob that is there; the databases, which containerd does write, are copied.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.images.commands import ImagesError, run
from hack.images.layout import blobs_of, entries_of, write_archive
from hack.kube.controlplane import eventually
from hack.kube.gobuild import exclusively
from hack.kube.kubectl import ControlPlaneError

LARGE = 2**29
"""Layers from this size on, in bytes, decide whether a seed serves; smaller ones are sent to the nodes afterwards."""
CONTENT = "io.containerd.content.v1.content/blobs"
CTR = ("ctr", "--namespace", "k8s.io", "--address")
CONFIG = 'version = 2\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


def seed_for(layout: Path, names: tuple[str, ...], cache: Path) -> Path:
    """The root to seed nodes with; made when there is none for these layers, and then those for others are removed.

    Raises:
        ImagesError: containerd is missing, or refused the images.
    """
    large = sorted(blob for blob in _all_blobs(layout, names) if _file(layout, blob).stat().st_size >= LARGE)
    seed = cache / f"seed-{hashlib.sha256(json.dumps(large).encode()).hexdigest()[:12]}"
    with exclusively(cache / ".seed.lock"):
        if not seed.is_dir():
            for old in cache.glob("seed-*"):
                shutil.rmtree(old)
            _make(seed, layout, names)
    return seed


def _make(seed: Path, layout: Path, names: tuple[str, ...]) -> None:
    if shutil.which("containerd") is None:
        raise ImagesError("no containerd to unpack images with: apt-get install containerd")
    with tempfile.TemporaryDirectory(dir=seed.parent, prefix=".seed-") as workspace:
        root = Path(workspace) / "root"
        entries = entries_of(layout, names)
        with _containerd(root, Path(workspace)) as socket:
            importing = subprocess.Popen([*CTR, socket, "images", "import", "-"], stdin=subprocess.PIPE)
            assert importing.stdin is not None
            with importing.stdin as archive:
                write_archive(archive, layout, entries, list(_all_blobs(layout, names)))
            if importing.wait() != 0:
                raise ImagesError("containerd refused the images; what it said stands above")
        share_blobs(layout, root / CONTENT)
        root.rename(seed)


def share_blobs(layout: Path, content: Path) -> None:
    """Makes the layout's blobs hard links to the same ones of a containerd's content, so that they lie on disk once."""
    for blob in content.glob("*/*"):
        same = layout / "blobs" / blob.relative_to(content)
        if same.is_file() and not same.samefile(blob):
            link = same.with_name(f"{same.name}.link")
            link.unlink(missing_ok=True)
            link.hardlink_to(blob)
            link.replace(same)


@contextmanager
def _containerd(root: Path, workspace: Path) -> Iterator[str]:
    """A containerd of our own while the block runs; the address at which it answers."""
    config, log = workspace / "config.toml", workspace / "containerd.log"
    config.write_text(CONFIG)
    socket = str(workspace / "containerd.sock")
    command = ["containerd", f"--config={config}", f"--root={root}", f"--state={workspace / 'state'}"]
    with log.open("w") as said:
        process = subprocess.Popen([*command, f"--address={socket}"], stdout=said, stderr=said)
    try:
        eventually(lambda: _answers(socket), "containerd does not answer")
        yield socket
    except ControlPlaneError as error:
        raise ImagesError(f"{error}:\n{log.read_text()[-2000:]}") from None
    finally:
        process.terminate()
        process.wait()


def _answers(socket: str) -> bool:
    try:
        run(*CTR, socket, "version")
    except ImagesError:
        return False
    return True


def _all_blobs(layout: Path, names: tuple[str, ...]) -> dict[str, None]:
    return dict.fromkeys(blob for entry in entries_of(layout, names) for blob in blobs_of(layout, entry))


def _file(layout: Path, blob: str) -> Path:
    return layout / "blobs" / blob.replace(":", "/", 1)
