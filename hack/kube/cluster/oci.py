"""Container images of a few static files, written without a container engine (OCI image layout 1.0 in a tar).

https://github.com/opencontainers/image-spec: layout, manifest and configuration.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"


def write_image(archive: Path, name: str, files: Mapping[str, Path], *, entrypoint: Sequence[str], user: str) -> None:
    """Write the image `name` (with its tag) that holds `files`, paths in the image to files here, to `archive`.

    The archive appears whole or not at all, and is the same, byte for byte, for the same files.
    """
    layer = _layer(files)
    system = {"architecture": ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux"}
    configuration = _json(
        {
            **system,
            "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor(f"{_MEDIA}.config.v1+json", configuration),
            "layers": [_descriptor(f"{_MEDIA}.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor(f"{_MEDIA}.manifest.v1+json", manifest) | {
        "platform": system,
        "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
    }
    blobs = {f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in (layer, configuration, manifest)}
    documents = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
    }
    _write_whole(archive, documents | blobs)


def _write_whole(archive: Path, members: Mapping[str, bytes]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(f".{archive.name}-{os.getpid()}")
    try:
        with tarfile.open(draft, "w") as tar:
            for path, content in members.items():
                _add(tar, path, content, mode=0o644)
        draft.replace(archive)
    finally:
        draft.unlink(missing_ok=True)


def _layer(files: Mapping[str, Path]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in sorted({parent for path in files for parent in Path(path).parents if parent.name}):
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, source in sorted(files.items()):
            _add(tar, path.lstrip("/"), source.read_bytes(), mode=0o755)
    return layer.getvalue()


def _add(tar: tarfile.TarFile, path: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
