"""Asks the API server itself what a user may do (SubjectAccessReview)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from hack.kube import ControlPlane
from tests.chart.rights import Right

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


class Access:
    """The API server, asked as its administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        headers = {"Authorization": f"Bearer {plane.token()}"}
        self._client = httpx.Client(base_url=plane.url, headers=headers, verify=context, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def may(self, account: str, namespace: str, right: Right) -> bool:
        """Whether that service account may do it."""
        resource, _, subresource = right.resource.partition("/")
        attributes = {"namespace": right.namespace, "group": right.group, "resource": resource, "verb": right.verb}
        attributes |= {"subresource": subresource, "name": right.name}
        spec = {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            "resourceAttributes": attributes,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = self._client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
        return bool(answer.raise_for_status().json()["status"]["allowed"])

    def every_right(self, *namespaces: str) -> Iterator[Right]:
        """Each verb on each resource that is served, in each of the namespaces; "" asks for all at once."""
        for group, resource in sorted(self._resources()):
            for verb in VERBS:
                for namespace in namespaces:
                    yield Right(namespace, group, resource, verb)

    def _resources(self) -> set[tuple[str, str]]:
        groups = self._get("/apis")["groups"]
        paths = {group["name"]: f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"]}
        found = {(name, each["name"]) for name, path in paths.items() for each in self._get(path)["resources"]}
        return found | {("", each["name"]) for each in self._get("/api/v1")["resources"]}

    def _get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()
