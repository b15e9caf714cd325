"""hack/kube/rbac.yaml: the chart's rights, for the users of a control plane without Helm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hack.generate.crd import IndentedDumper

RIGHTS = Path(__file__).parents[2] / "charts/snowmelt/files/rbac.yaml"
HEADER = """\
# Generated from charts/snowmelt/files/rbac.yaml by `make generate`. Do not edit.
# What the operator may do, and what a user of the cluster may do, in the demo and in the tests without Helm.
"""
NAMESPACE = "snowmelt-system"
OPERATOR = "snowmelt-operator"
USER = "snowmelt-user"
Rule = dict[str, Any]


def local_rbac_yaml() -> str:
    """The whole file."""
    rights: dict[str, list[Rule]] = yaml.safe_load(RIGHTS.read_text("utf-8"))
    own = [_without_chart(rule) for rule in rights["key"] + rights["fill"] + rights["lease"]]
    events = [
        {"apiGroups": [group], "resources": ["events"], "verbs": ["get", "list", "watch"]}
        for group in ("", "events.k8s.io")
    ]
    operator, users = ("User", "operator"), ("Group", "snowmelt:users")
    documents = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        _role(OPERATOR, rights["jobs"] + rights["kuberay"]),
        _binding(OPERATOR, *operator),
        _role(OPERATOR, own, namespace=NAMESPACE),
        _binding(OPERATOR, *operator, namespace=NAMESPACE),
        _role(USER, rights["view"] + rights["edit"] + events),
        _binding(USER, *users),
    ]
    return HEADER + yaml.dump_all(documents, Dumper=IndentedDumper, sort_keys=False, width=120)


def _without_chart(rule: Rule) -> Rule:
    """Nothing made Secret and Lease before, and operators in the tests have Leases of their own names."""
    unnamed = {key: value for key, value in rule.items() if key != "resourceNames"}
    return unnamed | {"verbs": [*rule["verbs"], "create"]}


def _role(name: str, rules: list[Rule], *, namespace: str = "") -> dict[str, Any]:
    return _object("ClusterRole", name, namespace) | {"rules": rules}


def _binding(name: str, kind: str, subject: str, *, namespace: str = "") -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    role = "Role" if namespace else "ClusterRole"
    return _object("ClusterRoleBinding", name, namespace) | {
        "roleRef": {"apiGroup": group, "kind": role, "name": name},
        "subjects": [{"kind": kind, "apiGroup": group, "name": subject}],
    }


def _object(kind: str, name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind.removeprefix("Cluster") if namespace else kind,
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
    }
