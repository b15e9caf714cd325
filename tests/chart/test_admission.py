"""The real API server takes every object of the chart, and a namespace of level `restricted` the operator's pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hack.kube import ControlPlane, ControlPlaneError
from hack.kube.helm import Document, Helm
from tests.chart.documents import pod_of, the
from tests.chart.matrix import VALUES

NAMESPACE = "restricted"


@pytest.fixture(scope="module")
def restricted(plane: ControlPlane) -> str:
    """A namespace that enforces Pod Security's level `restricted`, and those that the chart's values name."""
    for name in (NAMESPACE, "team-a", "team-b"):
        if not plane.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name"):
            plane.kubectl("create", "namespace", name)
    plane.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    return NAMESPACE


def dry_run(plane: ControlPlane, *documents: Document) -> str:
    """Server-side, with every unknown field refused."""
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-")
    return plane.kubectl(*words, stdin="\n---\n".join(json.dumps(document) for document in documents))


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_api_server_takes_every_object(
    values: dict[str, Any], helm: Helm, plane: ControlPlane, restricted: str
) -> None:
    documents = helm.template("snowmelt", namespace=restricted, values=values)
    # A pod needs its service account, which in a dry run is not there: the tests below are about pods.
    objects = [document for document in documents if document["kind"] != "Pod"]
    assert len(dry_run(plane, *objects).splitlines()) == len(objects)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_a_restricted_namespace_admits_the_operators_pods(
    values: dict[str, Any], helm: Helm, plane: ControlPlane, restricted: str
) -> None:
    documents = helm.template("snowmelt", namespace=restricted, values=values)
    template = pod_of(documents)
    make_account(plane, template["spec"]["serviceAccountName"], restricted)
    assert "serverside-applied" in dry_run(plane, as_pod("operator", restricted, template))


def test_a_restricted_namespace_admits_the_pod_of_the_helm_test(
    helm: Helm, plane: ControlPlane, restricted: str
) -> None:
    pod = the(helm.template("snowmelt", namespace=restricted), "Pod")
    make_account(plane, pod["spec"]["serviceAccountName"], restricted)
    assert "serverside-applied" in dry_run(plane, pod)


def test_a_restricted_namespace_would_refuse_a_pod_that_is_less_careful(
    helm: Helm, plane: ControlPlane, restricted: str
) -> None:
    template = pod_of(helm.template("snowmelt", namespace=restricted, values={"serviceAccount": {"name": "careless"}}))
    make_account(plane, "careless", restricted)
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(ControlPlaneError, match="violates PodSecurity"):
        dry_run(plane, as_pod("careless", restricted, template))


def make_account(plane: ControlPlane, name: str, namespace: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(account))


def as_pod(name: str, namespace: str, template: Document) -> Document:
    metadata = template["metadata"] | {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
