"""What the images are built with, and how they travel to nodes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from hack.images.base import mirror
from hack.images.build import pip_configuration
from hack.images.commands import ImagesError
from hack.images.layout import NAME, blobs_of, entries_of, write_archive
from hack.images.seed import share_blobs

IMAGE = "localhost/some/image:1"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout of one image with two layers; digests are made up."""
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifest = {"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l1"}, {"digest": "sha256:l2"}]}
    for name, content in {"m": json.dumps(manifest), "c": "{}", "l1": "one", "l2": "two"}.items():
        (blobs / name).write_text(content)
    entry = {"digest": "sha256:m", "annotations": {"org.opencontainers.image.ref.name": IMAGE}}
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (tmp_path / "oci-layout").write_text("{}")
    return tmp_path


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}


def test_an_archive_holds_the_blobs_that_were_asked_for_and_the_images_name(layout: Path) -> None:
    entries = entries_of(layout, [IMAGE])
    assert list(blobs_of(layout, entries[0])) == ["sha256:m", "sha256:c", "sha256:l1", "sha256:l2"]
    archive = io.BytesIO()
    write_archive(archive, layout, entries, ["sha256:m", "sha256:l2"])
    files = members(archive.getvalue())
    assert set(files) == {"oci-layout", "index.json", "blobs/sha256/m", "blobs/sha256/l2"}
    assert files["blobs/sha256/l2"] == b"two"
    assert json.loads(files["index.json"])["manifests"][0]["annotations"][NAME] == IMAGE


def test_an_image_that_the_layout_lacks_is_named(layout: Path) -> None:
    with pytest.raises(ImagesError, match="has no image localhost/other:1: make it with `make images`"):
        entries_of(layout, ["localhost/other:1"])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "# deb http://commented/debian x main\ndeb [signed-by=/k] http://mirror.test/debian x main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.test/debian\nSuites: x\n"),
    ],
)
def test_the_mirror_is_the_first_debian_in_apts_sources(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "another.list").write_text("deb https://other.test/apt x main\n")
    (tmp_path / file).write_text(text)
    assert mirror(tmp_path) == "http://mirror.test/debian"


def test_without_a_source_of_debian_a_base_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(ImagesError, match="--base"):
        mirror(tmp_path)


def test_pips_settings_go_along_but_for_files_of_this_machine() -> None:
    listed = (
        "global.cert='/a.pem'\nglobal.index-url='https://a.test/simple'\n:env:.timeout='9'\n:env:.find-links='/w'\n"
    )
    assert pip_configuration(listed) == "[global]\nindex-url = https://a.test/simple\ntimeout = 9\n"


def test_blobs_that_containerd_has_too_lie_on_disk_once(layout: Path, tmp_path: Path) -> None:
    content = tmp_path / "containerd" / "blobs"
    (content / "sha256").mkdir(parents=True)
    for name in ("l1", "elsewhere"):
        (content / "sha256" / name).write_text("one")
    share_blobs(layout, content)
    blobs = layout / "blobs" / "sha256"
    assert (blobs / "l1").samefile(content / "sha256" / "l1")
    assert (blobs / "l2").read_text() == "two"
    assert sorted(file.name for file in blobs.iterdir()) == ["c", "l1", "l2", "m"]
