"""The chart, installed on a control plane; and the operator as its Deployment would run it, beside the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hack.kube import ControlPlane
from hack.kube.helm import CHART, Document, Helm
from hack.localoperator import LocalOperator
from tests.chart.documents import environment_of, pod_of

NAME = "snowmelt"


@dataclass(frozen=True)
class Release:
    """A release of the name `snowmelt` in a namespace that is made for it."""

    plane: ControlPlane
    helm: Helm
    namespace: str
    values: Mapping[str, Any]

    def install(self) -> str:
        """What helm says; nothing is waited for, because no kubelet runs."""
        words = ("install", NAME, CHART, "--namespace", self.namespace, "--create-namespace")
        return self.helm(*words, values=self.values)

    @cached_property
    def documents(self) -> list[Document]:
        """What the chart renders for it."""
        return self.helm.template(NAME, namespace=self.namespace, values=self.values)

    @cached_property
    def account(self) -> str:
        """The operator's service account."""
        name: str = pod_of(self.documents)["spec"]["serviceAccountName"]
        return name

    @property
    def user(self) -> str:
        """What the API server calls that account."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def operator(self, folder: Path, pod: str) -> LocalOperator:
        """The operator with the environment and the rights of one of the Deployment's pods; not started yet."""
        token = self.plane.kubectl("create", "token", self.account, "-n", self.namespace).strip()
        folder.mkdir(exist_ok=True)
        kubeconfig = self.plane.write_kubeconfig(folder / "kubeconfig", self.account, token)
        environment = environment_of(self.documents, pod=pod, namespace=self.namespace)
        settings = {name.removeprefix("SNOWMELT_").lower(): value for name, value in environment.items()}
        # Where it listens is this machine's matter.
        here = {each: value for each, value in settings.items() if not each.startswith(("progress_", "health_"))}
        at_once = {"retry_base_seconds": "0"}
        return LocalOperator(self.plane, folder / "operator.log", kubeconfig=kubeconfig, **here | at_once)
