"""An earlier release is taken from the history of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hack.images.commands import ImagesError
from hack.images.earlier import Earlier

ANYBODY = ("-c", "user.name=Anybody", "-c", "user.email=anybody@example.com")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits."""
    folder = tmp_path / "repository"
    git(folder.parent, "init", "--quiet", str(folder))
    for text in ("first", "second"):
        (folder / "chart.yaml").write_text(text)
        git(folder, "add", "chart.yaml")
        git(folder, *ANYBODY, "commit", "--quiet", "--message", text)
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_a_release_has_the_files_of_its_commit_with_the_modes_of_a_checkout(repository: Path, tmp_path: Path) -> None:
    release = Earlier("0.1.0", git(repository, "rev-parse", "HEAD~1"))
    file = release.check_out(tmp_path / "new" / "release", repository) / "chart.yaml"
    assert file.read_text() == "first"
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_checkout_without_the_release_is_told_to_fetch_its_history(repository: Path, tmp_path: Path) -> None:
    release = Earlier("0.1.0", "b" * 40)
    with pytest.raises(
        ImagesError, match=r"release 0\.1\.0 is commit b{40}, which .*repository lacks: fetch the whole"
    ):
        release.check_out(tmp_path / "release", repository)
