"""Rights as a set: what is granted, what was used, and what was refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hack.kube import ControlPlane


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource; `name` is empty where it is good for every object, and `namespace` for every one."""

    namespace: str
    group: str
    resource: str
    """With its subresource, for instance finetunejobs/status."""
    verb: str
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''} {self.name}".strip() + where


def of_rules(rules: Iterable[dict[str, Any]], *, namespace: str) -> Iterator[Right]:
    for rule in rules:
        assert "nonResourceURLs" not in rule
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        yield Right(namespace, group, resource, verb, name)


def granted(plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """What is bound to a service account, by the API server's own objects."""

    def is_bound(binding: dict[str, Any]) -> bool:
        wanted = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        return any(wanted.items() <= subject.items() for subject in binding.get("subjects", []))

    found: set[Right] = set()
    for binding in plane.get("clusterrolebindings")["items"]:
        if is_bound(binding):
            role = plane.get("clusterrole", binding["roleRef"]["name"])
            found |= set(of_rules(role["rules"], namespace=""))
    for binding in plane.get("rolebindings", "-A")["items"]:
        if is_bound(binding):
            at = binding["metadata"]["namespace"]
            role = plane.get("role", binding["roleRef"]["name"], "-n", at)
            found |= set(of_rules(role["rules"], namespace=at))
    return found


@dataclass
class Trail:
    """What one user asked of the API server since the trail was begun, by the audit log."""

    plane: ControlPlane
    user: str
    used: set[Right] = field(default_factory=set)
    refused: set[Right] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._position = self.plane.audit_log.stat().st_size

    def follow(self) -> Trail:
        """Read on."""
        with self.plane.audit_log.open() as log:
            log.seek(self._position)
            while (line := log.readline()).endswith("\n"):
                self._position = log.tell()
                self._take(json.loads(line))
        return self

    def _take(self, entry: dict[str, Any]) -> None:
        about = entry.get("objectRef", {})
        if entry["user"]["username"] != self.user or "resource" not in about:
            return
        resource = about["resource"] + (f"/{about['subresource']}" if "subresource" in about else "")
        where, group, name = (about.get(key, "") for key in ("namespace", "apiGroup", "name"))
        right = Right(where, group, resource, entry["verb"], name)
        code = entry.get("responseStatus", {}).get("code")
        if code == 403:
            self.refused.add(right)
            return
        self.used.add(right)
        if (right.verb, code) == ("patch", 201):
            # Server-side apply of what did not exist: the API server asked for both rights in this one request.
            self.used.add(Right(right.namespace, right.group, right.resource, "create", right.name))


def covers(grant: Right, request: Right) -> bool:
    """Whether RBAC lets the request pass by this grant."""
    return (
        (grant.group, grant.resource, grant.verb) == (request.group, request.resource, request.verb)
        and grant.namespace in ("", request.namespace)
        and grant.name in ("", request.name)
    )
