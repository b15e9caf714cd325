"""What results say of where they were measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.report.machine import revision

GIT = ("git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


def test_a_commit_is_marked_by_changes_of_the_program_and_not_by_what_a_benchmark_writes(tmp_path: Path) -> None:
    code, results = tmp_path / "code.py", tmp_path / "docs" / "results.jsonl"
    results.parent.mkdir()
    for file in (code, results):
        file.write_text("as committed")
    for arguments in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "Begin")):
        subprocess.run([*GIT, *arguments], cwd=tmp_path, check=True)
    commit = revision(tmp_path)
    assert commit
    results.write_text("one fit more")
    assert revision(tmp_path) == commit
    code.write_text("changed")
    assert revision(tmp_path) == f"{commit}-dirty"


def test_outside_of_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert revision(tmp_path) == ""
