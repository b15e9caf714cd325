"""Install, upgrade and uninstall on an API server; pods are left out, because no kubelet runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hack.kube import ControlPlane
from hack.kube.helm import CHART, Helm
from tests.chart.release import NAME, Release
from tests.controlplane.api import Api, has
from tests.controlplane.jobs import manifest
from tests.controlplane.kuberay_standin import KubeRayStandIn

pytestmark = pytest.mark.timeout(240)
SYSTEM, TEAM = "snowmelt-system", "team"
SELECTED = "app.kubernetes.io/part-of=snowmelt"


def objects_of_the_release(plane: ControlPlane) -> set[str]:
    """Whatever in the cluster has the chart's label, by kind and name; FineTuneJobs are people's and have it not."""
    kinds = plane.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in kinds if not kind.startswith("finetunejobs.")]
    found = plane.kubectl("get", ",".join(kinds), "-A", "-l", SELECTED, "-o", "name", "--ignore-not-found")
    return set(found.split())


def test_an_upgrade_keeps_key_and_jobs_and_uninstalling_keeps_the_crd_and_the_jobs_alone(
    fresh_plane: ControlPlane, helm_binary: Path, tmp_path: Path
) -> None:
    plane = fresh_plane
    release = Release(plane, Helm(helm_binary, tmp_path / "helm", plane.kubeconfig()), SYSTEM, {})
    assert "kubectl apply -f -" in release.install()
    plane.kubectl("create", "namespace", TEAM)
    api = Api(plane, TEAM)
    kuberay = KubeRayStandIn(api)

    with release.operator(tmp_path / "first", pod="snowmelt-0"):
        api.create("finetunejobs", manifest("shoes"))
        kuberay.runs("shoes-a1")
        api.until("finetunejobs", "shoes", has("Running"))
    key = _key(plane)
    assert key

    release.helm("upgrade", NAME, CHART, "--namespace", SYSTEM, values={"replicas": 3, "logLevel": "DEBUG"})
    assert _key(plane) == key
    assert plane.get("deployment", NAME, "-n", SYSTEM)["spec"]["replicas"] == 3
    with release.operator(tmp_path / "second", pod="snowmelt-1"):
        api.create("finetunejobs", manifest("hats"))
        kuberay.runs("hats-a1")
        api.until("finetunejobs", "hats", has("Running"))
        assert {rayjob["metadata"]["name"] for rayjob in api.list("rayjobs")} == {"shoes-a1", "hats-a1"}

    said = release.helm("uninstall", NAME, "--namespace", SYSTEM)
    assert "kept due to the resource policy" in said
    assert "finetunejobs.snowmelt.dev" in said
    assert objects_of_the_release(plane) == {"customresourcedefinition.apiextensions.k8s.io/finetunejobs.snowmelt.dev"}
    for kind in ("secrets", "leases", "serviceaccounts", "configmaps"):
        names = {each["metadata"]["name"] for each in plane.get(kind, "-n", SYSTEM)["items"]}
        assert names <= {"kube-root-ca.crt"}
    assert {job["metadata"]["name"] for job in api.list("finetunejobs")} == {"shoes", "hats"}

    release.install()  # whoever installs it again finds CRD and jobs
    with release.operator(tmp_path / "third", pod="snowmelt-2"):
        kuberay.ends("shoes-a1", "FAILED", "Failed", message="the node went")
        api.until("finetunejobs", "shoes", lambda job: job["status"]["attempts"]["failed"] == 1)
    api.close()


def test_without_keep_the_crd_goes_with_the_release_and_the_notes_warn(
    fresh_plane: ControlPlane, helm_binary: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"crds": {"keep": False}}
    release = Release(fresh_plane, Helm(helm_binary, tmp_path / "helm", fresh_plane.kubeconfig()), SYSTEM, values)
    assert "EVERY\nFineTuneJob of the cluster" in release.install()
    release.helm("uninstall", NAME, "--namespace", SYSTEM)
    assert objects_of_the_release(fresh_plane) == set()


def _key(plane: ControlPlane) -> str:
    secret = plane.get("secret", f"{NAME}-progress-key", "-n", SYSTEM)
    key: str = secret.get("data", {}).get("key", "")
    return key
