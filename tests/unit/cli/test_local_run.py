"""What a run on this machine is, before anything is started."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from snowmelt_cli import local_run
from snowmelt_cli.local_run import LocalRunError, plan_run, set_aside, uid_of
from snowmelt_operator.api.v1alpha1 import FineTuneJob


def job(name: str = "shoes", **spec: Any) -> FineTuneJob:
    return FineTuneJob.parse(
        {
            "apiVersion": "snowmelt.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name},
            "spec": {
                "backbone": {"architecture": "resnet18"},
                "data": {"train": {"uri": "pvc://shoes/train"}},
                "output": {"uri": "pvc://models/shoes"},
            }
            | spec,
        }
    )


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    (tmp_path / "volumes/shoes").mkdir(parents=True)
    return tmp_path / "volumes"


def test_the_same_job_is_the_same_run_so_that_it_resumes() -> None:
    assert uid_of(job()) == uid_of(job())


def test_what_may_change_while_a_job_lives_does_not_make_it_another_run() -> None:
    assert uid_of(job()) == uid_of(job(workers={"replicas": 2}, suspend=True, backoffLimit=1, runtime={"image": "x"}))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "boots"},
        {"backbone": {"architecture": "resnet34"}},
        {"optimization": {"seed": 1}},
        {"unfreezing": {"strategy": "Full"}},
        {"output": {"uri": "pvc://models/boots"}},
        {"data": {"train": {"uri": "pvc://boots/train"}}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_name_or_training_is_another_run(other: dict[str, Any]) -> None:
    assert uid_of(job()) != uid_of(job(**other))


def test_state_lies_with_the_model_and_the_log_in_the_cache(volumes: Path, tmp_path: Path) -> None:
    run = plan_run(job(), volumes=volumes, cache=tmp_path / "cache")
    assert run.state == volumes / "models/shoes/.snowmelt" / uid_of(job())
    assert run.log.is_relative_to(tmp_path / "cache/runs")


def test_a_volume_that_is_not_here_is_named_with_the_remedy(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalRunError, match=r"spec\.data\.test\.uri: pvc://gone/x is the folder .*--volumes DIR"):
        plan_run(
            job(data={"train": {"uri": "pvc://shoes/train"}, "test": {"uri": "pvc://gone/x"}}),
            volumes=volumes,
            cache=tmp_path,
        )


def test_gpus_that_are_not_here_are_told_rather_than_waited_for(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "_has_gpu", lambda: False)
    with pytest.raises(LocalRunError, match=r"spec\.workers\.resources: .* leave nvidia\.com/gpu out"):
        plan_run(job(workers={"resources": {"limits": {"nvidia.com/gpu": 1}}}), volumes=volumes, cache=tmp_path)


def test_a_fresh_start_loses_nothing(volumes: Path, tmp_path: Path) -> None:
    run = plan_run(job(), volumes=volumes, cache=tmp_path)
    assert set_aside(run, datetime(2026, 1, 2, tzinfo=UTC)) is None
    run.state.mkdir(parents=True)
    (run.state / "checkpoint").write_text("weights")
    kept = set_aside(run, datetime(2026, 1, 2, tzinfo=UTC))
    assert kept is not None
    assert (kept / "checkpoint").read_text() == "weights"
    assert not run.state.exists()
