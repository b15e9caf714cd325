"""The trainer's configuration, the RayJob and its Secret, from a spec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_operator.api.quantity import parse_quantity
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.render.config import run_config, worker_group
from snowmelt_operator.render.names import Submission, rayjob_name, submission_id
from snowmelt_operator.render.rayjob import RuntimeDefaults, render_rayjob, render_secret
from snowmelt_trainer.contract.run import JobIdentity, RunConfig
from tests.unit.operator_core.building import UID, job

DEFAULTS = RuntimeDefaults(image="example.com/trainer:1", ray_version="2.60.0")
IDENTITY = JobIdentity(namespace="team", name="shoes", uid=UID)


def pods(rayjob: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod templates of a RayJob."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "head": cluster["headGroupSpec"]["template"],
        "worker": workers["template"],
        "submitter": rayjob["spec"]["submitterPodTemplate"],
    }


def test_the_run_config_holds_every_default_that_was_applied() -> None:
    config = run_config(job().spec, IDENTITY, progress=None, volumes_root="/mnt/snowmelt")
    assert config == RunConfig.model_validate_json(config.model_dump_json(by_alias=True))
    assert json.loads(config.model_dump_json(by_alias=True))["optimization"]["headStart"] == "Auto"


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus"),
    [
        ({}, 1.0, 0),
        ({"requests": {"cpu": "500m"}}, 0.5, 0),
        ({"requests": {"cpu": "3500m"}}, 3.0, 0),
        ({"limits": {"cpu": 2, "nvidia.com/gpu": 1}}, 2.0, 1),
        ({"requests": {"cpu": 4}, "limits": {"cpu": 8, "amd.com/gpu": "2"}}, 4.0, 2),
    ],
)
def test_workers_reserve_in_ray_what_their_pods_reserve(resources: dict[str, Any], cpus: float, gpus: int) -> None:
    group = worker_group(job(workers={"replicas": 3, "resources": resources}).spec)
    assert (group.replicas, group.cpus, group.gpus) == (3, cpus, gpus)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4", 4),
        (4, 4),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("16Gi", 16 * 2**30),
        ("2k", 2000),
        ("1e3", 1000),
        ("3E", 3 * 10**18),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str | int, amount: float) -> None:
    assert parse_quantity(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "4x", "Gi", "-1", "1 Gi", "4ki", "4\n"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for instance 4, 500m or 16Gi"):
        parse_quantity(text)


def test_kuberay_retries_nothing_and_tears_down_what_has_ended() -> None:
    spec = render_rayjob(job(startupDeadlineSeconds=100), 2, DEFAULTS)["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["preRunningDeadlineSeconds"] == 160
    assert "suspend" not in spec  # it is Kueue's


def test_everything_of_an_attempt_goes_with_its_finetunejob() -> None:
    finetunejob = job()
    config = run_config(finetunejob.spec, IDENTITY, progress=None, volumes_root="/mnt/snowmelt")
    for manifest in (render_rayjob(finetunejob, 1, DEFAULTS), render_secret(finetunejob, 1, config, "token")):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (UID, True)
        assert manifest["metadata"]["name"] == "shoes-a1"


def test_the_token_is_mounted_into_the_head_alone() -> None:
    mounted = {
        name: [volume for volume in template["spec"].get("volumes", []) if "secret" in volume]
        for name, template in pods(render_rayjob(job(), 1, DEFAULTS)).items()
    }
    assert mounted["head"][0]["secret"]["secretName"] == "shoes-a1"
    assert mounted["worker"] == mounted["submitter"] == []


def test_no_pod_may_ask_the_api_server_or_gain_rights() -> None:
    for template in pods(render_rayjob(job(), 1, DEFAULTS)).values():
        assert template["spec"]["automountServiceAccountToken"] is False
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["runAsNonRoot"] is True
        assert template["metadata"]["labels"]["snowmelt.dev/job"] == "shoes"


def test_the_pods_of_a_deleted_job_are_given_no_half_minute_to_end() -> None:
    templates = pods(render_rayjob(job(), 1, DEFAULTS))
    assert {templates[name]["spec"]["terminationGracePeriodSeconds"] for name in ("head", "worker")} == {10}


def test_inputs_are_mounted_read_only_and_the_output_is_not() -> None:
    finetunejob = job(
        data={"train": {"uri": "pvc://shoes/train"}, "test": {"uri": "pvc://held-out"}},
        backbone={"architecture": "resnet18", "weightsFrom": {"uri": "pvc://backbones/r18.safetensors"}},
        output={"uri": "pvc://shoes/model"},
    )
    templates = pods(render_rayjob(finetunejob, 1, DEFAULTS))
    for name in ("head", "worker"):
        mounts = templates[name]["spec"]["containers"][0]["volumeMounts"]
        claims = {m["mountPath"]: m["readOnly"] for m in mounts if m["mountPath"].startswith("/mnt/snowmelt/")}
        assert claims == {
            "/mnt/snowmelt/shoes": False,
            "/mnt/snowmelt/held-out": True,
            "/mnt/snowmelt/backbones": True,
        }


def test_the_runtime_reaches_every_pod() -> None:
    runtime = {
        "image": "example.com/mine:2",
        "env": [{"name": "HF_HOME", "value": "/tmp"}],
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "pull"}],
        "queueName": "gpus",
        "priorityClassName": "low",
    }
    rayjob = render_rayjob(job(runtime=runtime), 1, DEFAULTS)
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    for name, template in pods(rayjob).items():
        spec = template["spec"]
        assert spec["containers"][0]["image"] == "example.com/mine:2"
        assert spec["nodeSelector"] == {"pool": "gpu"}
        assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert spec["imagePullSecrets"] == [{"name": "pull"}]
        assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("trainer", "low")
        if name != "submitter":
            assert {"name": "HF_HOME", "value": "/tmp"} in spec["containers"][0]["env"]


PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def preferences(template: dict[str, Any], kind: str) -> dict[str, int]:
    """Weight by topology, of terms that select this attempt's pods alone."""
    terms = template["spec"]["affinity"].get(kind, {}).get(PREFERRED, [])
    for term in terms:
        selector = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert (selector["snowmelt.dev/uid"], selector["snowmelt.dev/attempt"]) == (UID, "1")
    return {term["podAffinityTerm"]["topologyKey"].split("/")[1]: term["weight"] for term in terms}


@pytest.mark.parametrize(
    ("runtime", "near", "far"),
    [
        ({}, {"zone": 100}, {}),
        ({"placement": "SameNode"}, {"zone": 50, "hostname": 100}, {}),
        ({"placement": "DifferentNodes"}, {"zone": 50}, {"hostname": 100}),
    ],
)
def test_the_workers_of_a_job_would_rather_sit_where_it_says_and_never_must(
    runtime: dict[str, Any], near: dict[str, int], far: dict[str, int]
) -> None:
    templates = pods(render_rayjob(job(runtime=runtime), 1, DEFAULTS))
    assert preferences(templates["worker"], "podAffinity") == near
    assert preferences(templates["worker"], "podAntiAffinity") == far
    assert preferences(templates["head"], "podAffinity") == near
    assert preferences(templates["head"], "podAntiAffinity") == {}
    for name in ("head", "worker"):
        for kind in templates[name]["spec"]["affinity"].values():
            assert set(kind) == {PREFERRED}


@pytest.mark.parametrize(
    ("resources", "limit"),
    [
        ({}, None),
        ({"limits": {"memory": "16Gi"}}, "8192Mi"),
        ({"requests": {"memory": "3G"}}, "1430Mi"),
        ({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}, "1024Mi"),
    ],
)
def test_shared_memory_is_half_of_a_workers_memory(resources: dict[str, Any], limit: str | None) -> None:
    template = pods(render_rayjob(job(workers={"resources": resources}), 1, DEFAULTS))["worker"]
    (shared,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "shm"]
    assert shared["emptyDir"].get("sizeLimit") == limit
    assert {"name": "shm", "mountPath": "/dev/shm"} in template["spec"]["containers"][0]["volumeMounts"]


@pytest.mark.parametrize("vendor", ["nvidia.com/gpu", "amd.com/gpu"])
def test_gpus_of_a_worker_are_asked_of_kubernetes_and_told_to_ray(vendor: str) -> None:
    workers = {"resources": {"limits": {vendor: 2}}}
    (group,) = render_rayjob(job(workers=workers), 1, DEFAULTS)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["rayStartParams"]["num-gpus"] == "2"
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"] == {vendor: 2}


def test_secrets_and_config_maps_reach_the_environment_by_reference() -> None:
    env = [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
    ]
    templates = pods(render_rayjob(job(runtime={"env": env}), 1, DEFAULTS))
    for name in ("head", "worker"):
        assert templates[name]["spec"]["containers"][0]["env"][-2:] == env


def test_a_rayjob_is_handed_to_multikueue_where_the_job_says_so() -> None:
    handed = job(runtime={"managedBy": "kueue.x-k8s.io/multikueue", "queueName": "team"})
    assert render_rayjob(handed, 1, DEFAULTS)["spec"]["managedBy"] == "kueue.x-k8s.io/multikueue"
    assert "managedBy" not in render_rayjob(job(), 1, DEFAULTS)["spec"]


def test_a_rayjobs_name_fits_kuberays_bound() -> None:
    assert len(rayjob_name("x" * 40, 9999)) <= 47


@given(namespace=st.text(max_size=63), name=st.text(max_size=40), attempt=st.integers(1, 10_000))
def test_a_submissions_metadata_say_whose_it_is(namespace: str, name: str, attempt: int) -> None:
    submission = Submission.of(ObjectMeta(name=name, namespace=namespace, uid=UID), attempt)
    assert Submission.from_metadata(submission.metadata) == submission


@pytest.mark.parametrize("metadata", [{}, {"job_name": "theirs"}, {"snowmelt.dev/attempt": "one"}])
def test_a_strangers_submission_is_not_ours(metadata: dict[str, str]) -> None:
    assert Submission.from_metadata(metadata) is None


def test_jobs_of_one_name_have_different_submissions() -> None:
    ids = {submission_id(ObjectMeta(name="shoes", namespace="team", uid=uid), 1) for uid in (UID, UID[::-1])}
    assert len(ids) == 2


def test_what_a_job_leaves_out_is_left_out_of_its_rayjob() -> None:
    def empty(value: Any, path: str) -> list[str]:
        if value in ({}, [], ""):
            return [path]
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for key, item in items for found in empty(item, f"{path}.{key}")]

    for finetunejob in (job(), job(workers={"resources": {"limits": {"nvidia.com/gpu": 1}}})):
        assert empty(render_rayjob(finetunejob, 1, DEFAULTS), "rayjob") == []


def test_an_elastic_job_starts_with_the_fewest_workers_because_kuberay_waits_for_every_pod() -> None:
    (group,) = render_rayjob(job(workers={"elastic": {"min": 2, "max": 8}}), 1, DEFAULTS)["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ]
    assert [group[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 8]


def test_workers_of_less_than_a_cpu_are_not_packed_into_one_pod() -> None:
    finetunejob = job(workers={"replicas": 2, "resources": {"requests": {"cpu": "500m"}}})
    config = run_config(finetunejob.spec, IDENTITY, progress=None, volumes_root="/mnt/snowmelt")
    told = RunConfig.model_validate_json(render_secret(finetunejob, 1, config, "token")["stringData"]["config.json"])
    (group,) = render_rayjob(finetunejob, 1, DEFAULTS)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["rayStartParams"]["num-cpus"] == "1"
    assert told.workers.cpus == 1.0
