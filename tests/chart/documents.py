"""What a test wants to know of rendered objects."""

from __future__ import annotations

from typing import Any

from hack.kube.helm import Document


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def the(documents: list[Document], kind: str) -> Document:
    """The only object of that kind."""
    (found,) = of_kind(documents, kind)
    return found


def pod_of(documents: list[Document]) -> Document:
    """The operator's pod template."""
    template: Document = the(documents, "Deployment")["spec"]["template"]
    return template


def container_of(documents: list[Document]) -> dict[str, Any]:
    (container,) = pod_of(documents)["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def environment_of(documents: list[Document], *, pod: str, namespace: str) -> dict[str, str]:
    """The environment that the operator's container gets in the pod of that name."""
    fields = {"metadata.name": pod, "metadata.namespace": namespace}
    return {
        each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container_of(documents)["env"]
    }
