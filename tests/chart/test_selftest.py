"""The job of `helm test`, with the rights that the chart gives it: what it says when all is well, and when not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from hack.kube import ControlPlane
from hack.kube.helm import Helm
from snowmelt_operator.selftest import FOLDER, IMAGES_OF_A_CLASS, SIDE, write_images
from snowmelt_trainer.contract.reasons import Reason
from tests.chart.documents import of_kind, the
from tests.chart.release import Release
from tests.controlplane.api import Api
from tests.controlplane.jobs import failed, post, succeeded
from tests.controlplane.kuberay_standin import KubeRayStandIn

pytestmark = pytest.mark.timeout(180)
NAMESPACE = "melt-test"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def release(plane: ControlPlane, helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A release that serves its own namespace, with its operator running."""
    folder = tmp_path_factory.mktemp("selftest")
    helm = Helm(helm_binary, folder / "helm", plane.kubeconfig())
    release = Release(plane, helm, NAMESPACE, {"crds": {"enabled": False}, "watchNamespaces": [NAMESPACE]})
    release.install()
    hooks = of_kind(release.documents, "ServiceAccount", "Role", "RoleBinding")
    for hook in hooks:  # helm makes those of the test only when it runs
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(hook))
    with release.operator(folder / "operator", pod="snowmelt-0"):
        yield release


@pytest.fixture
def api(plane: ControlPlane, release: Release) -> Iterator[Api]:
    client = Api(plane, NAMESPACE)
    yield client
    client.close()


@pytest.fixture
def start(plane: ControlPlane, release: Release, tmp_path: Path) -> Iterator[Start]:
    """Starts the test's container as a process: its own command, its service account's rights."""
    pod = the(release.documents, "Pod")
    account = pod["spec"]["serviceAccountName"]
    token = plane.kubectl("create", "token", account, "-n", NAMESPACE).strip()
    kubeconfig = plane.write_kubeconfig(tmp_path / "kubeconfig", account, token)
    (container,) = pod["spec"]["containers"]
    _, *command = container["command"]
    here = {"--data=/data": f"--data={tmp_path}", "--node=$(NODE)": "--node=node-7"}
    arguments = [here.get(each, each) for each in container["args"]]
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments, *more],
            env=os.environ | {"KUBECONFIG": str(kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_it_says_each_phase_ends_well_and_leaves_no_job(start: Start, api: Api) -> None:
    process, kuberay = start(), KubeRayStandIn(api)
    kuberay.runs("snowmelt-selftest-a1")
    node = (api.get("finetunejobs", "snowmelt-selftest") or {})["spec"]["runtime"]["nodeSelector"]
    assert node == {"kubernetes.io/hostname": "node-7"}
    assert post(kuberay, "snowmelt-selftest-a1", succeeded(1, 1, "x")).is_success
    kuberay.ends("snowmelt-selftest-a1", "SUCCEEDED", "Complete")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.splitlines()[-2:] == ["melt-test/snowmelt-selftest: Succeeded", "the job completed"]
    assert api.get("finetunejobs", "snowmelt-selftest") is None
    kuberay.lets_go("snowmelt-selftest-a1")


def test_it_fails_with_the_jobs_own_reason(start: Start, api: Api) -> None:
    process, kuberay = start(), KubeRayStandIn(api)
    kuberay.runs("snowmelt-selftest-a1")
    assert post(kuberay, "snowmelt-selftest-a1", failed(1, 1, Reason.DATA_NOT_FOUND, "nothing there")).is_success
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1] == f"selftest: the job failed: {Reason.DATA_NOT_FOUND}: nothing there"
    assert api.get("finetunejobs", "snowmelt-selftest") is None
    kuberay.lets_go("snowmelt-selftest-a1")


def test_it_says_when_no_operator_takes_the_job_up(start: Start, plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "not-served")
    rights = ("create", "rolebinding", "test", "--clusterrole=cluster-admin", "-n", "not-served")
    plane.kubectl(*rights, f"--serviceaccount={NAMESPACE}:snowmelt-test")
    process = start("--namespace=not-served", "--seconds=2")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no operator has taken the job up" in said


def test_its_images_are_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    for label, level in {"dark": 20, "light": 200}.items():
        files = sorted((tmp_path / FOLDER / "train" / label).glob("*.png"))
        assert len(files) == IMAGES_OF_A_CLASS
        with Image.open(files[0]) as image:
            assert (image.size, image.getextrema()) == ((SIDE, SIDE), (level, level))
