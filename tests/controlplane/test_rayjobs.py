"""Every RayJob that the operator renders is one that KubeRay's real CRD takes, with no field unknown to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.render.rayjob import RuntimeDefaults, render_rayjob
from tests.controlplane.api import Api
from tests.controlplane.jobs import manifest

DEFAULTS = RuntimeDefaults(image="registry.invalid/trainer:1", ray_version="2.60.0")
EVERYTHING: dict[str, Any] = {
    "image": "registry.invalid/mine:2",
    "env": [
        {"name": "PLAIN", "value": "1"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "CONFIG", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
    ],
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "serviceAccountName": "trainers",
    "imagePullSecrets": [{"name": "registry"}],
    "queueName": "team-a",
    "priorityClassName": "low",
    "placement": "DifferentNodes",
    "managedBy": "kueue.x-k8s.io/multikueue",
}
SPECS: dict[str, dict[str, Any]] = {
    "a minimal job": {},
    "a job with every field of runtime": {"runtime": EVERYTHING},
    "many workers with GPUs": {
        "workers": {
            "replicas": 16,
            "resources": {"requests": {"cpu": 4, "memory": "16Gi"}, "limits": {"nvidia.com/gpu": 2}},
        }
    },
    "a share of a CPU": {"workers": {"resources": {"requests": {"cpu": "500m"}}}},
    "several claims": {
        "backbone": {"architecture": "resnet18", "weightsFrom": {"uri": "pvc://backbones/r.safetensors"}},
        "data": {"train": {"uri": "pvc://shoes/train"}, "test": {"uri": "pvc://held-out/test"}},
    },
    "the longest startup deadline": {"startupDeadlineSeconds": 7 * 86_400},
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_kuberays_crd_takes_the_rayjob_of(spec: dict[str, Any], api: Api) -> None:
    stored = api.create("finetunejobs", manifest("m" * 40, **spec))
    rendered = render_rayjob(FineTuneJob.parse(stored), 999_999, DEFAULTS)
    created = api.create("rayjobs", rendered, dry_run=True)
    assert created["metadata"]["name"] == f"{'m' * 40}-a999999"
    assert created["spec"]["backoffLimit"] == 0
    assert created["spec"]["shutdownAfterJobFinishes"] is True


def test_kuberays_crd_is_strict_enough_to_refuse_a_wrong_field(api: Api) -> None:
    stored = api.create("finetunejobs", manifest("typo"))
    rendered = render_rayjob(FineTuneJob.parse(stored), 1, DEFAULTS)
    rendered["spec"]["backofLimit"] = 0
    with pytest.raises(httpx.HTTPStatusError, match="backofLimit"):
        api.create("rayjobs", rendered, dry_run=True)
