"""The CustomResourceDefinition of FineTuneJob."""

from __future__ import annotations

from typing import Any

import yaml

from hack.generate.structural import VALIDATIONS, structural_schema, validations
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.v1alpha1 import GROUP, KIND, NAME_RULES, PLURAL, VERSION, FineTuneJob, FineTuneJobSpec

HEADER = "# Generated from operator/snowmelt_operator/api by `make generate`. Do not edit.\n"
WIDE = 1


def crd_yaml() -> str:
    """crds/snowmelt.dev_finetunejobs.yaml."""
    return HEADER + yaml.dump(crd(), Dumper=IndentedDumper, sort_keys=False, width=120, allow_unicode=True)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as a document."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                "categories": ["all", "snowmelt"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    return {
        "type": "object",
        "description": FineTuneJob.__doc__,
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": structural_schema(FineTuneJobSpec, path="spec", with_defaults=True),
            "status": structural_schema(FineTuneJobStatus, path="status", with_defaults=False),
        },
        VALIDATIONS: validations(NAME_RULES, under=".metadata"),
    }


def _columns() -> list[dict[str, Any]]:
    return [
        _column("Phase", ".status.phase"),
        _column("Stage", ".status.display.stage"),
        _column("Progress", ".status.display.progress"),
        _column("Metric", ".status.display.metric"),
        _column("ETA", ".status.display.eta"),
        _column("Attempt", ".status.attempts.current", kind="integer"),
        _column("Age", ".metadata.creationTimestamp", kind="date"),
        _column("Reason", '.status.conditions[?(@.type=="Failed")].reason', priority=WIDE),
        _column("Workers", ".status.progress.workers", kind="integer", priority=WIDE),
        _column("RayJob", ".status.rayJobName", priority=WIDE),
        _column("Test", ".status.result.test.accuracy", priority=WIDE),
        _column("Model", ".status.result.modelUri", priority=WIDE),
        _column("Message", '.status.conditions[?(@.type=="Failed")].message', priority=WIDE),
    ]


def _column(name: str, path: str, *, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


class IndentedDumper(yaml.SafeDumper):
    """No aliases: every part stands where it is read."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, *_: object, **__: object) -> None:
        super().increase_indent(flow, False)
