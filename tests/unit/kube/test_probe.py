"""A machine whose kernel refuses what a cluster needs is told so before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.kube.cluster import RequirementsError
from hack.kube.cluster.probe import probe


def test_a_sandbox_without_namespaces_is_told_in_the_kernels_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2; exit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RequirementsError, match=r"processes: unshare failed: Operation not permitted$"):
        probe(tmp_path / "cluster")
    assert list(tmp_path.iterdir()) == [unshare], "a trial left something"
