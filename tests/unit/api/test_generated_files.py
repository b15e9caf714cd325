"""The generated files: up to date, and noticed when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.generate.__main__ import ROOT, generated, main
from hack.generate.enumdocs import member_docs
from hack.generate.reasons import cause_and_remedy
from snowmelt_operator.api.reasons import Reason
from snowmelt_trainer.contract.reasons import Reason as TrainerReason


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


AS_IT_SHOULD_BE = {
    "SpecValid", "QueuedByKueue", "Admitted", "NotLaunched", "Starting", "ClusterUp", "TrainerRunning", "Launched",
    "Reporting", "NoReportYet", "Ended", "CheckpointWritten", "NoCheckpointYet", "Stopping", "Resumed",
    "TargetMet", "StagesCompleted",
}  # fmt: skip


def test_every_reason_for_which_something_is_wrong_says_its_cause_and_what_to_do() -> None:
    said = {
        reason: cause_and_remedy(text) for enum in (Reason, TrainerReason) for reason, text in member_docs(enum).items()
    }
    assert [reason for reason, (cause, _) in said.items() if not cause] == []
    assert {reason for reason, (_, remedy) in said.items() if not remedy} == AS_IT_SHOULD_BE
