"""Progress in the status of a real FineTuneJob: what the API server takes, and who owns which field."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.aio import client, config

from hack.kube import ControlPlane
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.apiserver import KubernetesCluster
from snowmelt_operator.cluster import ClusterConflictError
from snowmelt_operator.progress.refusal import Refusal
from snowmelt_operator.progress.writer import ProgressWriter
from snowmelt_trainer.contract.progress import BestStatus, DataStatus, MetricsStatus, Progress, ProgressStatus, StageRow
from tests.controlplane.api import Api
from tests.controlplane.jobs import manifest, snapshot, succeeded


@pytest.fixture
async def cluster(plane: ControlPlane) -> AsyncIterator[KubernetesCluster]:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(plane.kubeconfig("operator")), client_configuration=configuration)
    cluster = KubernetesCluster(configuration)
    yield cluster
    await cluster.aclose()


@pytest.fixture
def uid(plane: ControlPlane, namespace: str) -> str:
    return created(plane, namespace)


def created(plane: ControlPlane, namespace: str) -> str:
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest("shoes")))
    found: str = plane.get("ftj", "shoes", "-n", namespace)["metadata"]["uid"]
    return found


async def meta(cluster: KubernetesCluster, namespace: str) -> ObjectMeta:
    job = await cluster.get_job(namespace, "shoes")
    assert job is not None
    return job.metadata


def full(sequence: int, **more: Any) -> Progress:
    """A snapshot that sets every field."""
    now = datetime.now(UTC)
    return snapshot(1, sequence, stage=2).model_copy(
        update={
            "progress": ProgressStatus(
                percent=43,
                epoch=3,
                step=120,
                samples_per_second=812.5,
                estimated_completion_time=now + timedelta(minutes=12),
            ),
            "metrics": MetricsStatus(
                train={"loss": "0.211"},
                validation={"accuracy": "0.931", "loss": "1e-05"},
                best=BestStatus(metric="accuracy", value="0.934", stage=1, epoch=4),
            ),
            "stages": (
                StageRow(index=1, name="fc", epochs=4, seconds=61.5, metrics={"accuracy": "0.9"}, ended="Plateau"),
            ),
            "data": DataStatus(classes=10, train=1400, validation=160, test=237),
            "warnings": ("2 images of the test data are also in the training data",),
            **more,
        }
    )


async def test_a_full_snapshot_shows_in_kubectl_get(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    await ProgressWriter(cluster).submit(namespace, "shoes", uid, full(7))
    row = plane.kubectl("get", "ftj", "shoes", "-n", namespace, "--no-headers")
    assert all(cell in row for cell in ("2/3 fc", "43%", "accuracy 0.934", "12m"))
    status = plane.get("ftj", "shoes", "-n", namespace)["status"]
    assert (status["trainer"], status["stages"][0]["ended"]) == ({"attempt": 1, "sequence": 7}, "Plateau")


async def test_the_reconcilers_fields_and_the_progress_stand_side_by_side(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    reconciled = {"phase": "Running", "attempts": {"current": 1, "failed": 0}}
    await cluster.apply_status(await meta(cluster, namespace), reconciled)
    await ProgressWriter(cluster).submit(namespace, "shoes", uid, full(1))
    await cluster.apply_status(await meta(cluster, namespace), reconciled | {"rayJobName": "shoes-a1"})
    await ProgressWriter(cluster).submit(namespace, "shoes", uid, succeeded(1, 2, "shoes"))
    status = plane.get("ftj", "shoes", "-n", namespace)["status"]
    assert (status["phase"], status["rayJobName"]) == ("Running", "shoes-a1")
    assert status["trainer"]["final"]["outcome"] == "Succeeded"
    assert status["result"]["modelUri"] == "pvc://models/shoes"


async def test_what_a_later_snapshot_no_longer_says_is_gone(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    await ProgressWriter(cluster).submit(namespace, "shoes", uid, full(1))
    await ProgressWriter(cluster).submit(namespace, "shoes", uid, full(2, warnings=(), stage=None))
    status = plane.get("ftj", "shoes", "-n", namespace)["status"]
    assert not {"warnings", "stage"} & status.keys()


async def test_a_job_that_was_created_anew_never_gets_the_old_ones_progress(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str, api: Api
) -> None:
    plane.kubectl("delete", "ftj", "shoes", "-n", namespace)
    created(plane, namespace)
    with pytest.raises(Refusal) as caught:
        await ProgressWriter(cluster).submit(namespace, "shoes", uid, full(1))
    assert caught.value.code == 410
    assert "status" not in plane.get("ftj", "shoes", "-n", namespace)


async def test_a_status_decided_on_a_job_is_refused_by_another_of_its_name(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    before = await meta(cluster, namespace)
    plane.kubectl("delete", "ftj", "shoes", "-n", namespace)
    created(plane, namespace)
    with pytest.raises(ClusterConflictError):
        await cluster.apply_status(before, {"phase": "Failed"})
    assert "status" not in plane.get("ftj", "shoes", "-n", namespace)


async def test_a_number_that_no_status_can_hold_is_refused_as_the_senders_mistake(
    cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    monstrous = full(1, progress=ProgressStatus(percent=1, step=10**30))
    with pytest.raises(Refusal) as caught:
        await ProgressWriter(cluster).submit(namespace, "shoes", uid, monstrous)
    assert caught.value.code == 400


async def test_progress_while_the_api_server_is_away_is_kept_by_the_sender(
    plane: ControlPlane, cluster: KubernetesCluster, namespace: str, uid: str
) -> None:
    writer = ProgressWriter(cluster)
    plane.stop_apiserver()
    try:
        with pytest.raises(Refusal) as caught:
            await writer.submit(namespace, "shoes", uid, full(1))
    finally:
        plane.start_apiserver()
    assert caught.value.code == 503
    await writer.submit(namespace, "shoes", uid, full(1))
    assert plane.get("ftj", "shoes", "-n", namespace)["status"]["trainer"]["sequence"] == 1
