"""What the operator's settings add to the pods of every job."""

from __future__ import annotations

from typing import Any

from snowmelt_operator.api.defaults import PodDefaults
from snowmelt_operator.render.rayjob import RuntimeDefaults, render_rayjob
from tests.unit.operator_core.building import job
from tests.unit.operator_core.test_render import pods

GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SPOT = {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}
GIVEN: dict[str, Any] = {
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}, {"name": "LEVEL", "value": "default"}],
    "nodeSelector": {"pool": "gpu", "zone": "a"},
    "tolerations": [GPU],
    "serviceAccountName": "trainers",
    "priorityClassName": "training",
}


def templates(**runtime: Any) -> dict[str, dict[str, Any]]:
    defaults = RuntimeDefaults("trainer:1", "2.60.0", PodDefaults.model_validate(GIVEN))
    return pods(render_rayjob(job(runtime=runtime), 1, defaults))


def test_every_pod_of_a_job_that_says_nothing_has_the_defaults() -> None:
    for role, template in templates().items():
        spec = template["spec"]
        (container,) = spec["containers"]
        assert (container["image"], container["imagePullPolicy"]) == ("trainer:1", "Always"), role
        for field in ("imagePullSecrets", "nodeSelector", "tolerations", "serviceAccountName", "priorityClassName"):
            assert spec[field] == GIVEN[field], (role, field)


def test_what_a_job_says_goes_before_the_defaults() -> None:
    own = {"serviceAccountName": "mine", "priorityClassName": "low", "nodeSelector": {"zone": "b"}, "image": "mine:2"}
    spec = templates(**own)["worker"]["spec"]
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("mine", "low")
    assert spec["nodeSelector"] == {"pool": "gpu", "zone": "b"}
    assert spec["containers"][0]["image"] == "mine:2"


def test_lists_are_joined_and_nothing_is_in_them_twice() -> None:
    worker = templates(
        tolerations=[SPOT, GPU],
        imagePullSecrets=[{"name": "mine"}, {"name": "registry"}],
        env=[{"name": "LEVEL", "value": "mine"}],
    )["worker"]["spec"]
    assert worker["tolerations"] == [SPOT, GPU]
    assert worker["imagePullSecrets"] == [{"name": "mine"}, {"name": "registry"}]
    variables = {each["name"]: each["value"] for each in worker["containers"][0]["env"]}
    assert variables["LEVEL"] == "mine"
    assert variables["HTTPS_PROXY"] == "http://proxy"
