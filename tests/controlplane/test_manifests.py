"""What the API server makes of manifests, good and bad, with the real kubectl; and that it agrees with our types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hack.kube import ControlPlane, ControlPlaneError
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from tests.controlplane.api import Api
from tests.manifests.cases import Bad, bad_manifests, good_manifests

REFUSED = [case for case in bad_manifests() if case.refused_by != "validate"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.file.stem)
def test_a_bad_manifest_is_refused_at_apply(plane: ControlPlane, namespace: str, case: Bad) -> None:
    with pytest.raises(ControlPlaneError) as refusal:
        plane.kubectl("apply", "-n", namespace, "-f", case.file)
    assert case.kubectl_says in str(refusal.value)
    assert case.refused_by == "kubectl" or case.field in str(refusal.value)


@pytest.mark.parametrize("file", good_manifests(), ids=lambda file: file.stem)
def test_a_good_manifest_is_taken(plane: ControlPlane, namespace: str, file: Path) -> None:
    plane.kubectl("apply", "-n", namespace, "-f", file)


def test_defaults_are_those_of_the_types(plane: ControlPlane, namespace: str) -> None:
    minimal = next(file for file in good_manifests() if file.stem == "minimal")
    plane.kubectl("apply", "-n", namespace, "-f", minimal)
    stored = plane.get("finetunejob", "shoes", "-n", namespace)
    given = {key: stored["spec"][key] for key in ("backbone", "data", "output")}
    bare = FineTuneJob.parse({**stored, "spec": {**given, "data": {"train": given["data"]["train"]}}})
    assert FineTuneJob.parse(stored).spec == bare.spec
    assert stored["spec"]["optimization"] == bare.spec.optimization.to_json_dict()
    assert stored["spec"]["unfreezing"] == bare.spec.unfreezing.to_json_dict()


def test_kubectl_explains_every_field(plane: ControlPlane) -> None:
    assert "A torchvision classification builder" in plane.kubectl("explain", "ftj.spec.backbone.architecture")
    assert "maxEpochs" in plane.kubectl("explain", "finetunejob.spec", "--recursive")


def test_the_table_has_the_promised_columns(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("apply", "-n", namespace, "-f", good_manifests()[-2])
    narrow = plane.kubectl("get", "ftj", "-n", namespace).splitlines()[0].split()
    wide = plane.kubectl("get", "ftj", "-n", namespace, "-o", "wide").splitlines()[0].split()
    assert narrow == ["NAME", "PHASE", "STAGE", "PROGRESS", "METRIC", "ETA", "ATTEMPT", "AGE"]
    assert wide == [*narrow, "REASON", "WORKERS", "RAYJOB", "TEST", "MODEL", "MESSAGE"]


URIS = ["pvc://a/b", "file:///a", "pvc://a/../b", "s3://a/b", "a/b", "pvc://A", "pvc://a", ""]
NUMBERS = [-1, 0, 0.5, 1, 2, 65, 1e9, "1", None]


def _some(**fields: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice among the fields, each with one of its values."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in fields.items()})


SPECS = st.fixed_dictionaries(
    {
        "backbone": st.builds(
            lambda name, more: {"architecture": name} | more,
            st.sampled_from(["resnet18", "resnet50", "vit_h_14", "vgg16", "resnet51"]),
            _some(
                weights=["DEFAULT", "None", "IMAGENET1K_V1", "IMAGENET1K_V2", "IMAGENET1K_FEATURES", "V3"],
                weightsFrom=[{"uri": uri} for uri in URIS],
            ),
        ),
        "data": st.builds(
            lambda uri, more: {"train": {"uri": uri}} | more,
            st.sampled_from(URIS),
            _some(
                validation=[{}, {"fraction": 0.5}, {"uri": URIS[0], "fraction": 0.5}], imageSize=[15, 16, 1025, "64"]
            ),
        ),
        "output": st.builds(lambda uri: {"uri": uri}, st.sampled_from(URIS[:3])),
    },
    optional={
        "unfreezing": _some(
            strategy=["Gradual", "Custom", "Surgical", "full"],
            stages=[[], [{"unfreeze": ["layer4"]}], [{"unfreeze": []}]],
            target=[
                {"atLeast": 0.5},
                {"metric": "loss", "atMost": 2},
                {"metric": "loss"},
                {"atLeast": 2},
                {"atMost": 1},
            ],
            maxStages=NUMBERS,
        ),
        "optimization": _some(
            learningRate=NUMBERS, seed=NUMBERS, regularization=[{"mixup": 0}, {"mixup": 1}, {"dropout": 1}]
        ),
        "workers": _some(replicas=NUMBERS, resources=[{"limits": {"cpu": c}} for c in (*NUMBERS, "500m", "1Zi", True)]),
        "suspend": st.sampled_from([True, None, "true", 0]),
        "backoffLimit": st.sampled_from(NUMBERS),
    },
)


SMALLEST = {
    "backbone": {"architecture": "resnet18"},
    "data": {"train": {"uri": "pvc://shoes/train"}},
    "output": {"uri": "pvc://models/shoes"},
}


@example(spec=SMALLEST | {"optimization": {"seed": 1e9, "learningRate": 1}})
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=SPECS)
def test_the_types_and_the_api_server_agree(api: Api, spec: dict[str, Any]) -> None:
    manifest = {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "agreed", "namespace": api.namespace},
        "spec": spec,
    }
    try:
        FineTuneJob.parse(manifest)
    except ValidationError:
        with pytest.raises(httpx.HTTPStatusError):
            api.create("finetunejobs", manifest, dry_run=True)
    else:
        api.create("finetunejobs", manifest, dry_run=True)
