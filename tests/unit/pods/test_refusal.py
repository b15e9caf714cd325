"""Pods that cannot be made: the API server's words, in the RayCluster's condition that KubeRay hands on."""

from __future__ import annotations

import pytest

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.refusal import refusal

QUOTA = (
    'FailedCreateWorkerPod\npods "shoes-a1-abc34-workers-x1" is forbidden: '
    "exceeded quota: team, requested: {}, used: {}, limited: {}"
)


@pytest.mark.parametrize(
    ("requested", "used", "limited", "permanent"),
    [
        ("requests.cpu=4", "requests.cpu=2", "requests.cpu=5", False),
        ("requests.cpu=4", "requests.cpu=0", "requests.cpu=3500m", True),
        ("limits.memory=16Gi,pods=1", "limits.memory=0,pods=1", "limits.memory=8Gi,pods=9", True),
        ("limits.memory=16Gi,pods=1", "limits.memory=0,pods=9", "limits.memory=32Gi,pods=9", False),
        ("requests.nvidia.com/gpu=1", "requests.nvidia.com/gpu=0", "requests.nvidia.com/gpu=0", True),
    ],
)
def test_a_quota_that_others_use_up_may_free_itself_and_one_that_is_too_small_does_not(
    requested: str, used: str, limited: str, permanent: bool
) -> None:
    found = refusal(QUOTA.format(requested, used, limited))
    assert found is not None
    assert (found.reason, found.is_permanent) == (Reason.QUOTA_EXCEEDED, permanent)
    assert f"limited: {limited}" in found.message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: failed quota: team: must specify limits.cpu for: ray-head', Reason.QUOTA_EXCEEDED),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', Reason.POD_REFUSED),
        ('pods "x" is forbidden: maximum cpu usage per Container is 2, but limit is 4', Reason.POD_REFUSED),
        ('pods "x" is forbidden: error looking up service account team/trainers: not found', Reason.POD_REFUSED),
        ('admission webhook "policy.example" denied the request: no latest tags', Reason.POD_REFUSED),
        ('Pod "x" is invalid: spec.containers[0].resources.requests: must be less than or equal', Reason.POD_REFUSED),
    ],
)
def test_what_the_api_server_refuses_needs_somebody(message: str, reason: Reason) -> None:
    found = refusal(message)
    assert found is not None
    assert (found.reason, found.is_permanent) == (reason, True)


def test_an_api_server_that_merely_fails_refuses_nothing() -> None:
    assert refusal('Post "https://10.0.0.1:443/api/v1/namespaces/team/pods": connect: connection refused') is None
