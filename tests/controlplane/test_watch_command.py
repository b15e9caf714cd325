"""`snowmelt watch` against the real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kube import ControlPlane
from tests.commands import Command, Start, read_until, snowmelt_commands
from tests.controlplane.api import Api
from tests.controlplane.jobs import manifest, snapshot

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def watch(plane: ControlPlane, namespace: str) -> Iterator[Start]:
    """Starts `snowmelt watch NAME` as the administrator, or with another kubeconfig."""
    with snowmelt_commands() as start:

        def watch(name: str, *, kubeconfig: Path | None = None) -> Command:
            return start(
                "watch", name, "-n", namespace, environment={"KUBECONFIG": str(kubeconfig or plane.kubeconfig())}
            )

        yield watch


def say(api: Api, name: str, **status: Any) -> None:
    """What the operator would write."""
    api.patch("finetunejobs", name, {"status": status}, subresource="status")


def condition(kind: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": NOW}


def under_way(percent: int) -> dict[str, Any]:
    document = snapshot(1, 1, percent=percent).to_json_dict()
    return {"phase": "Running"} | {field: document[field] for field in ("stage", "progress", "metrics")}


def test_a_job_is_followed_until_it_succeeds(api: Api, watch: Start) -> None:
    api.create("finetunejobs", manifest("shoes"))
    process = watch("shoes")
    read_until(process, "no operator has seen it yet")
    say(api, "shoes", **under_way(10))
    assert any("stage 1/3 fc: 5,130 of 11,181,642" in line for line in read_until(process, "validation accuracy 0.9"))
    result = {"modelUri": "pvc://models/shoes", "sha256": "0" * 64, "test": {"accuracy": "0.961538"}}
    complete = condition("Complete", "TargetMet", "target met")
    say(api, "shoes", phase="Succeeded", conditions=[complete], result=result)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-3:] == [
        "Succeeded  TargetMet: target met",
        "model      pvc://models/shoes",
        "test       accuracy 0.9615",
    ]


def test_a_job_that_fails_is_told_with_reason_and_message(api: Api, watch: Start) -> None:
    api.create("finetunejobs", manifest("shoes"))
    failed = condition("Failed", "DataEmpty", "data.train: /mnt/x holds no image: put images there")
    say(api, "shoes", phase="Failed", conditions=[failed])
    process = watch("shoes")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "Failed  DataEmpty: data.train: /mnt/x holds no image: put images there"


def test_a_job_that_does_not_exist_is_told_so(watch: Start, namespace: str) -> None:
    process = watch("gone")
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (1, f"there is no FineTuneJob gone in namespace {namespace}\n")


def test_a_job_that_is_deleted_is_told_so(api: Api, watch: Start) -> None:
    api.create("finetunejobs", manifest("shoes"))
    process = watch("shoes")
    read_until(process, "Pending")
    api.delete("finetunejobs", "shoes")
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (1, "FineTuneJob shoes was deleted\n")


def test_a_stranger_is_told_so(plane: ControlPlane, watch: Start, tmp_path: Path) -> None:
    kubeconfig = yaml.safe_load(plane.kubeconfig().read_text())
    kubeconfig["users"][0]["user"] = {"token": "nonsense"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    process = watch("shoes", kubeconfig=tmp_path / "kubeconfig")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.startswith("the API server does not know who you are")


def test_without_a_cluster_it_says_what_is_missing(watch: Start, tmp_path: Path) -> None:
    process = watch("shoes", kubeconfig=tmp_path / "absent")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("no cluster is configured")


def test_watching_goes_on_when_the_api_server_is_back(plane: ControlPlane, api: Api, watch: Start) -> None:
    api.create("finetunejobs", manifest("shoes"))
    process = watch("shoes")
    read_until(process, "Pending")
    plane.stop_apiserver()
    plane.start_apiserver()
    say(api, "shoes", **under_way(10))
    read_until(process, "stage 1/3 fc")
    assert process.poll() is None
