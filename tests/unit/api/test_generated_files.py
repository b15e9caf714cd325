"""The generated files: up to date, and noticed when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.generate.__main__ import ROOT, generated, main


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return dict(generated())


def test_every_generated_file_is_up_to_date(files: dict[str, str]) -> None:
    assert [name for name, text in files.items() if (ROOT / name).read_text("utf-8") != text] == []


def test_check_names_each_stale_file_and_generating_mends_it(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], root=tmp_path) == 0
    crd, *_ = (name for name in files if name.startswith("crds/"))
    (tmp_path / crd).write_text("stale")
    (tmp_path / "docs/api.md").unlink()
    assert main(["--check"], root=tmp_path) == 1
    told = capsys.readouterr().err
    assert [line.split()[0] for line in told.splitlines()] == [crd, "docs/api.md"]
    assert (tmp_path / crd).read_text() == "stale"  # checking writes nothing
    assert main([], root=tmp_path) == 0
    assert main(["--check"], root=tmp_path) == 0


def test_the_chart_installs_the_same_crd(files: dict[str, str]) -> None:
    name = "snowmelt.dev_finetunejobs.yaml"
    assert files[f"charts/snowmelt/files/crds/{name}"] == files[f"crds/{name}"]
