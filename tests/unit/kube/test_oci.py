"""Images written without an engine are what the OCI image layout says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from hack.kube.cluster.oci import write_image


def written(folder: Path, content: bytes = b"a program") -> Path:
    program = folder / "program"
    program.write_bytes(content)
    archive = folder / "image.tar"
    write_image(archive, "localhost/a/b:1", {"/usr/bin/p": program}, entrypoint=["/usr/bin/p"], user="1:1")
    return archive


def blob(tar: tarfile.TarFile, descriptor: dict[str, Any]) -> bytes:
    member = tar.extractfile(f"blobs/{descriptor['digest'].replace(':', '/')}")
    assert member is not None
    content = member.read()
    assert len(content) == descriptor["size"]
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    return content


def test_an_image_leads_from_its_index_to_its_files(tmp_path: Path) -> None:
    with tarfile.open(written(tmp_path)) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
        manifest = json.loads(blob(tar, entry))
        configuration = json.loads(blob(tar, manifest["config"]))
        (layer,) = (blob(tar, one) for one in manifest["layers"])
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "localhost/a/b:1"
    assert configuration["config"] == {"Entrypoint": ["/usr/bin/p"], "User": "1:1", "WorkingDir": "/"}
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert files.getnames() == ["usr", "usr/bin", "usr/bin/p"]
        assert files.getmember("usr/bin/p").mode == 0o755


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first
    assert written(tmp_path, b"another").read_bytes() != first
