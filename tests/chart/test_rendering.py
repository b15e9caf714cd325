"""What the chart renders fits together, and fits the operator."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from hack.kube.helm import CHART, Document, Helm
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.health import HealthServer, Vitals
from snowmelt_operator.render.names import labels
from snowmelt_operator.settings import Settings
from tests.chart.documents import container_of, environment_of, of_kind, pod_of, the
from tests.chart.matrix import VALUES

NAMESPACE = "snowmelt-system"
each_way = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def rendered(helm: Helm, **values: Any) -> list[Document]:
    return helm.template("snowmelt", namespace=NAMESPACE, values=values)


@each_way
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any], helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, values=values)


@each_way
def test_the_operator_understands_every_setting_that_it_is_given(values: dict[str, Any], helm: Helm) -> None:
    environment = environment_of(rendered(helm, **values), pod="snowmelt-7f9-x2", namespace=NAMESPACE)
    settings = Settings.from_environment(environment)
    assert settings.identity == "snowmelt-7f9-x2"
    assert settings.operator_namespace == NAMESPACE
    assert settings.leader_election
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))


def test_what_the_trainers_pods_have_by_default_reaches_the_operator(helm: Helm) -> None:
    environment = environment_of(rendered(helm, **VALUES["everything"]), pod="p", namespace=NAMESPACE)
    defaults = Settings.from_environment(environment).pod_defaults
    given = VALUES["everything"]["trainer"]
    assert defaults.to_json_dict() == {
        "imagePullPolicy": "Always",
        **{key: given[key] for key in given if key not in ("image", "rayVersion")},
    }


@each_way
def test_every_object_of_a_namespace_says_which(values: dict[str, Any], helm: Helm) -> None:
    cluster_wide = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    nowhere = [
        document["metadata"]["name"]
        for document in rendered(helm, **values)
        if document["kind"] not in cluster_wide and "namespace" not in document["metadata"]
    ]
    assert nowhere == []


@each_way
def test_all_that_selects_pods_selects_the_operators(values: dict[str, Any], helm: Helm) -> None:
    documents = rendered(helm, **values)
    pod = pod_of(documents)["metadata"]["labels"].items()
    selectors = [
        the(documents, "Deployment")["spec"]["selector"]["matchLabels"],
        the(documents, "Service")["spec"]["selector"],
    ]
    selectors += [found["spec"]["selector"]["matchLabels"] for found in of_kind(documents, "PodDisruptionBudget")]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in of_kind(documents, "NetworkPolicy")]
    assert [selector for selector in selectors if not selector.items() <= pod] == []


@each_way
def test_the_ports_that_are_named_are_the_ones_that_the_operator_listens_on(values: dict[str, Any], helm: Helm) -> None:
    documents = rendered(helm, **values)
    settings = Settings.from_environment(environment_of(documents, pod="p", namespace=NAMESPACE))
    ports = {port["name"]: port["containerPort"] for port in container_of(documents)["ports"]}
    assert ports == {"progress": settings.progress_port, "health": settings.health_port}
    service = {port["name"]: (port["port"], port["targetPort"]) for port in the(documents, "Service")["spec"]["ports"]}
    assert service == {"progress": (ports["progress"], "progress"), "metrics": (ports["health"], "health")}
    for policy in of_kind(documents, "NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports.keys()


def test_jobs_report_to_the_service(helm: Helm) -> None:
    documents = rendered(helm, progress={"port": 9000})
    name = the(documents, "Service")["metadata"]["name"]
    settings = Settings.from_environment(environment_of(documents, pod="p", namespace=NAMESPACE))
    assert settings.progress_url == f"http://{name}.{NAMESPACE}.svc:9000"


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_each_probe_asks_for_a_path_that_the_operator_answers(probe: str, helm: Helm) -> None:
    asked = container_of(rendered(helm))[probe]["httpGet"]
    assert asked["port"] == "health"
    code, _, _ = HealthServer(Vitals(), lambda: b"").answer(asked["path"])
    assert code in (200, 503)


def test_losing_the_api_server_restarts_no_replica(helm: Helm) -> None:
    container = container_of(rendered(helm))  # /readyz fails while the API server is away, /healthz does not
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_the_progress_port_is_open_to_the_pods_of_jobs_by_a_label_that_they_have(helm: Helm) -> None:
    progress, _ = the(rendered(helm), "NetworkPolicy")["spec"]["ingress"]
    (peer,) = progress["from"]
    (expression,) = peer["podSelector"]["matchExpressions"]
    assert expression["key"] in labels(ObjectMeta(name="shoes", namespace="team-a", uid="1"), 1)
    assert peer["namespaceSelector"] == {}


def test_with_a_list_of_namespaces_only_jobs_of_these_reach_the_progress_port(helm: Helm) -> None:
    progress, _ = the(rendered(helm, watchNamespaces=["team-a"]), "NetworkPolicy")["spec"]["ingress"]
    (expression,) = progress["from"][0]["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}


def test_a_service_monitor_finds_the_service_and_its_port(helm: Helm) -> None:
    documents = rendered(helm, serviceMonitor={"enabled": True, "labels": {"release": "prometheus"}})
    monitor, service = the(documents, "ServiceMonitor"), the(documents, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == [NAMESPACE]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert not of_kind(rendered(helm), "ServiceMonitor")


def test_a_digest_wins_over_a_tag(helm: Helm) -> None:
    digest = "sha256:" + "a" * 64
    image = {"repository": "registry.example/operator", "tag": "1", "digest": digest}
    assert container_of(rendered(helm, image=image))["image"] == f"registry.example/operator@{digest}"


def test_a_disruption_budget_for_one_replica_would_say_nothing(helm: Helm) -> None:
    assert not of_kind(rendered(helm, replicas=1), "PodDisruptionBudget")
    assert the(rendered(helm, replicas=2), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_service_called_snowmelt_sets_no_variable_of_the_operators(helm: Helm) -> None:
    """Kubernetes would set SNOWMELT_PORT, and the operator refuses settings that it does not know."""
    documents = rendered(helm)
    assert the(documents, "Service")["metadata"]["name"] == "snowmelt"
    assert pod_of(documents)["spec"]["enableServiceLinks"] is False


def test_the_chart_says_the_version_of_the_distribution(helm: Helm) -> None:
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    assert container_of(rendered(helm))["image"] == f"snowmelt-operator:{project['version']}"
