"""Bring images from an OCI layout to the nodes of a cluster, without what they have already.

https://github.com/opencontainers/image-spec: image-layout.md, manifest.md
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from hack.images.commands import ImagesError
from hack.kube.cluster.cluster import Cluster
from hack.kube.cluster.node import Node

REFERENCE = "org.opencontainers.image.ref.name"
NAME = "io.containerd.image.name"


def load(cluster: Cluster, layout: Path, names: Iterable[str]) -> None:
    """Import images by name on every node, all nodes at once; only layers that a node lacks are sent to it.

    Raises:
        ImagesError: the layout has no such image.
        ControlPlaneError: a node refused one.
    """
    entries = entries_of(layout, names)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: _load(node, layout, entries), cluster.nodes))


def _load(node: Node, layout: Path, entries: list[dict[str, Any]]) -> None:
    present = node.blobs()
    blobs = [blob for entry in entries for blob in blobs_of(layout, entry) if blob not in present]
    with node.importing() as archive:
        write_archive(archive, layout, entries, blobs)


def write_archive(archive: IO[bytes], layout: Path, entries: list[dict[str, Any]], blobs: list[str]) -> None:
    """An OCI archive of some blobs of a layout, written as a stream."""
    with tarfile.open(fileobj=archive, mode="w|") as tar:
        _add(tar, "oci-layout", (layout / "oci-layout").read_bytes())
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
        for blob in dict.fromkeys(blobs):
            path = _path(blob)
            tar.add(layout / path, arcname=path, recursive=False)


def entries_of(layout: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The images' entries in the index.

    Raises:
        ImagesError: the layout lacks one.
    """
    return [_entry(layout, name) for name in names]


def _entry(layout: Path, name: str) -> dict[str, Any]:
    manifests: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())["manifests"]
    for entry in manifests:
        if entry.get("annotations", {}).get(REFERENCE) == name:
            return entry | {"annotations": {REFERENCE: name, NAME: name}}
    raise ImagesError(f"{layout} has no image {name}: make it with `make images`")


def blobs_of(layout: Path, entry: dict[str, Any]) -> Iterator[str]:
    """Digests of everything that an image is made of, its manifest first."""
    yield entry["digest"]
    manifest = json.loads((layout / _path(entry["digest"])).read_text())
    yield manifest["config"]["digest"]
    yield from (layer["digest"] for layer in manifest["layers"])


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _add(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
