"""The rights that the chart gives the operator: all of them are used, and nothing but them is needed or held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kube import ControlPlane, ControlPlaneError
from hack.kube.controlplane import eventually
from hack.kube.helm import CHART, Helm
from tests.chart.access import Access
from tests.chart.autopilot import clear, play_a_life
from tests.chart.release import NAME, Release
from tests.chart.rights import Right, Trail, covers, granted, of_rules
from tests.controlplane.api import Api

pytestmark = pytest.mark.timeout(240)
JOBS, SERVED_TOO, NOT_SERVED = "team-a", "team-b", "team-c"
EVERYWHERE, A_LIST = "all namespaces", "a list of namespaces"
each_scope = pytest.mark.parametrize("scope", [EVERYWHERE, A_LIST])
LIST: dict[str, list[dict[str, Any]]] = yaml.safe_load((CHART / "files/rbac.yaml").read_text())
IN_SERVED = [right for part in ("jobs", "kuberay") for right in of_rules(LIST[part], namespace="")]
IN_OWN = [right for part in ("key", "fill", "lease") for right in of_rules(LIST[part], namespace="")]
AT_THE_START = [right for right in IN_SERVED if right.verb in ("list", "watch") and right.resource != "events"]
IN_A_LIFE = [right for right in IN_SERVED if right not in AT_THE_START]


@pytest.fixture(scope="module")
def releases(plane: ControlPlane, helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Two releases side by side on one control plane."""
    helm = Helm(helm_binary, tmp_path_factory.mktemp("helm"), plane.kubeconfig())
    for namespace in (JOBS, SERVED_TOO, NOT_SERVED):
        if not plane.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name"):
            plane.kubectl("create", "namespace", namespace)
    without_crds = {"crds": {"enabled": False}}  # they are there
    made = {
        EVERYWHERE: Release(plane, helm, "melt-all", without_crds),
        A_LIST: Release(plane, helm, "melt-list", without_crds | {"watchNamespaces": [JOBS, SERVED_TOO]}),
    }
    for release in made.values():
        release.install()
    return made


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[Api]:
    """The namespace of the jobs, which is empty afterwards."""
    client = Api(plane, JOBS)
    yield client
    clear(client)
    client.close()


@each_scope
def test_the_life_of_a_job_uses_every_right_and_needs_no_other(
    scope: str, releases: dict[str, Release], plane: ControlPlane, api: Api, tmp_path: Path
) -> None:
    release = releases[scope]
    trail = Trail(plane, release.user)
    with release.operator(tmp_path / "pod", pod="snowmelt-0"):
        ended = play_a_life(api, "whole", over=lambda: bool(trail.follow().refused))
    trail.follow()
    assert trail.refused == set()
    assert ended
    grants = granted(plane, release.account, release.namespace)
    here = {grant for grant in grants if grant.namespace != SERVED_TOO}
    letting_pass = [[grant for grant in here if covers(grant, request)] for request in trail.used]
    spare = here - {grant for only in letting_pass if len(only) == 1 for grant in only}
    assert {str(grant) for grant in spare} == set()
    if scope == A_LIST:
        assert {grant.namespace for grant in grants} == {JOBS, SERVED_TOO, release.namespace}
        assert {replace(grant, namespace=JOBS) for grant in grants - here} == {
            grant for grant in grants if grant.namespace == JOBS
        }


@pytest.fixture(scope="module")
def running(releases: dict[str, Release], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The release for all namespaces, with its operator."""
    release = releases[EVERYWHERE]
    with release.operator(tmp_path_factory.mktemp("running"), pod="snowmelt-0"):
        yield release


@pytest.mark.parametrize("right", IN_A_LIFE, ids=str)
def test_a_job_does_not_get_through_its_life_without_the_right_to(
    right: Right, running: Release, plane: ControlPlane, api: Api
) -> None:
    trail = Trail(plane, running.user)
    with _taken_away(right, plane, "clusterrole", f"{running.namespace}:{NAME}"):
        ended = play_a_life(api, f"life-{IN_A_LIFE.index(right)}", over=lambda: bool(trail.follow().refused))
    assert not ended
    _assert_refused_for_want_of(right, trail)


@pytest.mark.parametrize("right", AT_THE_START + IN_OWN, ids=str)
def test_the_operator_is_refused_something_at_its_start_without_the_right_to(
    right: Right, releases: dict[str, Release], plane: ControlPlane, tmp_path: Path
) -> None:
    release = releases[A_LIST]
    role = ("role", NAME, "-n", JOBS) if right in AT_THE_START else ("role", f"{NAME}-own", "-n", release.namespace)
    _empty_key(plane, release)
    with _taken_away(right, plane, *role):
        trail = Trail(plane, release.user)
        operator = release.operator(tmp_path / "pod", pod="snowmelt-0")
        try:
            operator.service.start()
            eventually(lambda: bool(trail.follow().refused), "nothing was refused", within_s=90)
        finally:
            operator.stop()
    _assert_refused_for_want_of(right, trail)


def _assert_refused_for_want_of(right: Right, trail: Trail) -> None:
    # Server-side apply of a new object is refused as a whole when only the right to create it is missing.
    verbs = {"create", "patch"} if right.verb == "create" else {right.verb}
    wanted = {(right.group, right.resource, verb) for verb in verbs}
    assert {(each.group, each.resource, each.verb) for each in trail.refused} <= wanted


@each_scope
def test_of_all_that_the_api_server_serves_the_operator_may_do_what_is_listed_and_nothing_else(
    scope: str, releases: dict[str, Release], plane: ControlPlane
) -> None:
    release = releases[scope]
    grants = granted(plane, release.account, release.namespace)
    with Access(plane) as access:
        rights = list(access.every_right("", JOBS, NOT_SERVED))
        may = {right for right in rights if access.may(release.account, release.namespace, right)}
        more = {right for right in may if not access.may("nobody", release.namespace, right)}
    assert {str(right) for right in more if not any(covers(grant, right) for grant in grants)} == set()
    assert {right for right in more if right.namespace == JOBS} == {
        replace(right, namespace=JOBS) for right in IN_SERVED
    }
    if scope == A_LIST:
        assert {right.namespace for right in more} == {JOBS}


@pytest.mark.parametrize(
    "question",
    ["get secrets", "list secrets", "create pods", "create pods --subresource=exec", "patch finetunejobs",
     "update finetunejobs --subresource=finalizers", "patch rayjobs", "bind clusterroles", "impersonate users"],
)  # fmt: skip
def test_kubectl_says_that_the_operator_may_not(
    question: str, releases: dict[str, Release], plane: ControlPlane
) -> None:
    with pytest.raises(ControlPlaneError):
        _can_i(plane, question, releases[EVERYWHERE])


def test_kubectl_says_what_the_operator_may(releases: dict[str, Release], plane: ControlPlane) -> None:
    _can_i(plane, "delete rayjobs", releases[EVERYWHERE])  # else the refusals above would mean nothing


@each_scope
def test_in_its_own_namespace_the_operator_may_touch_two_objects_alone(
    scope: str, releases: dict[str, Release], plane: ControlPlane
) -> None:
    release = releases[scope]
    own, name = release.namespace, NAME
    with Access(plane) as access:

        def may(verb: str, group: str, resource: str, name: str) -> bool:
            return access.may(release.account, own, Right(own, group, resource, verb, name))

        assert may("get", "", "secrets", f"{name}-progress-key")
        assert may("update", "coordination.k8s.io", "leases", name)
        assert not may("get", "", "secrets", "other")
        assert not may("get", "", "secrets", "")
        assert not may("update", "coordination.k8s.io", "leases", "other")


def _can_i(plane: ControlPlane, question: str, release: Release) -> None:
    """Raises when kubectl says no."""
    plane.kubectl("auth", "can-i", *question.split(), "-n", JOBS, f"--as={release.user}", "--quiet")


@contextmanager
def _taken_away(right: Right, plane: ControlPlane, *role: str) -> Iterator[None]:
    rules = plane.get(*role)["rules"]

    def without(rule: dict[str, Any]) -> dict[str, Any]:
        concerned = right.group in rule["apiGroups"] and right.resource in rule["resources"]
        return rule | {"verbs": [verb for verb in rule["verbs"] if not (concerned and verb == right.verb)]}

    def put(changed: list[dict[str, Any]]) -> None:
        patch = json.dumps({"rules": [rule for rule in changed if rule["verbs"]]})
        plane.kubectl("patch", *role, "--type=merge", "--patch", patch)

    put([without(rule) for rule in rules])
    try:
        yield
    finally:
        put(rules)


def _empty_key(plane: ControlPlane, release: Release) -> None:
    """The Secret as the chart makes it."""
    name, where = f"{NAME}-progress-key", ("-n", release.namespace)
    plane.kubectl("delete", "secret", name, *where)
    plane.kubectl("create", "secret", "generic", name, *where)
