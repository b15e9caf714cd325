"""What `snowmelt validate` finds: everything that the API server would refuse, and more, with the line of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snowmelt_cli.manifest import Document, Finding, UnreadableError, read_documents
from snowmelt_operator.api.problems import Problem, problems_of
from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, FineTuneJob
from snowmelt_trainer.contract.catalog import did_you_mean


@dataclass
class Report:
    """The jobs of some manifests, and what is wrong with the others."""

    jobs: list[tuple[Path, FineTuneJob]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def check(files: Iterable[Path]) -> Report:
    """Reads every file to its end, or as far as it is YAML."""
    report = Report()
    for file in files:
        before = len(report.jobs) + len(report.findings)
        try:
            for document in read_documents(file):
                _check_document(document, report)
        except UnreadableError as error:
            report.findings.append(error.finding)
        if len(report.jobs) + len(report.findings) == before:
            report.findings.append(Finding(file, None, Problem((), f"empty: there is no {KIND} in it")))
    return report


def _check_document(document: Document, report: Report) -> None:
    findings = list(document.findings)
    problem = _not_a_job(document.value) if document.value is not None else None
    if problem is not None:
        findings.append(document.found(problem))
    elif document.value is not None:
        try:
            job = FineTuneJob.parse(document.value)
        except ValidationError as error:
            findings += [document.found(problem) for problem in problems_of(error)]
        else:
            if not findings:
                report.jobs.append((document.file, job))
    report.findings += sorted(findings, key=lambda finding: finding.line or 0)


def _not_a_job(value: Any) -> Problem | None:
    """Why it makes no sense to look any further."""
    if not isinstance(value, dict):
        return Problem(
            (), f"a manifest is a map with apiVersion, kind, metadata and spec; this is a {_yaml_type(value)}"
        )
    kind = value.get("kind")
    if kind is None:
        return Problem(("kind",), f"this field is required: write kind: {KIND}")
    if kind != KIND:
        return Problem(
            ("kind",), f"{kind!r} is no kind of {API_VERSION}{did_you_mean(str(kind), [KIND])}: write {KIND}"
        )
    return None


def _yaml_type(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"
