"""What people are told about a manifest that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from snowmelt_operator.api.problems import Problem, problems_of
from snowmelt_operator.api.v1alpha1 import FineTuneJob

SPEC: dict[str, Any] = {
    "backbone": {"architecture": "resnet18"},
    "data": {"train": {"uri": "pvc://shoes/train"}},
    "output": {"uri": "pvc://models/shoes"},
}


def job(name: str = "shoes", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": SPEC | spec,
    }


def told(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as refusal:
        FineTuneJob.parse(document)
    return [str(problem) for problem in problems_of(refusal.value)]


def test_a_misspelt_field_is_told_its_name() -> None:
    assert told(job(suspended=True)) == ["spec.suspended: there is no such field (did you mean suspend?): correct it"]


def test_a_field_that_resembles_nothing_is_told_what_there_is() -> None:
    (problem,) = told(job(backbone={"architecture": "resnet18", "xyz": 1}))
    assert problem == (
        "spec.backbone.xyz: there is no such field: remove it; there are architecture, candidates, weights, weightsFrom"
    )


def test_a_missing_field_is_told_what_it_is_for() -> None:
    assert told(job(output={})) == [
        "spec.output.uri: this field is required: A folder: file:///path or pvc://claim/path. The newest successful "
        "run's model lies directly in it; each run's state in .snowmelt/UID."
    ]


def test_a_field_of_a_list_entry_is_written_with_its_index() -> None:
    stages = [{"unfreeze": ["layer4"]}, {"unfreeze": ["head"], "maxEpochs": 0}]
    assert told(job(unfreezing={"strategy": "Custom", "stages": stages})) == [
        "spec.unfreezing.stages[1].maxEpochs: must be at least 1, not 0"
    ]


def test_every_problem_is_told_at_once() -> None:
    fields = [
        line.partition(":")[0]
        for line in told(
            job(
                name="Shoes",
                backbone={"architecture": "resnet51"},
                data={"train": {"uri": "x"}, "imageSize": "1"},
                workers={"replicas": 0, "elastic": {"min": 3, "max": 2}},
                suspend="yes",
            )
        )
    ]
    assert fields == [
        "metadata.name",
        "spec.backbone.architecture",
        "spec.data.train.uri",
        "spec.data.imageSize",
        "spec.workers.replicas",
        "spec.workers.elastic.min",
        "spec.suspend",
    ]


def test_two_broken_rules_of_one_object_are_two_problems() -> None:
    lines = told(job(optimization={"regularization": {"mixup": 0.1, "l2sp": 0.5}}))
    assert [line.partition(":")[0] for line in lines] == [
        "spec.optimization.regularization.mixup",
        "spec.optimization.regularization.l2sp",
    ]


def test_a_long_value_is_cut() -> None:
    (problem,) = told(job(suspend="x" * 1000))
    assert len(problem) < 120


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_that_is_none_is_taken(number: float) -> None:
    (problem,) = told(job(optimization={"learningRate": number}))
    assert problem.startswith("spec.optimization.learningRate: must be a finite number")


def test_a_null_is_as_good_as_nothing() -> None:
    parsed = FineTuneJob.parse(job(backoffLimit=None, data={"train": {"uri": "pvc://a"}, "validation": None}))
    assert (parsed.spec.backoff_limit, parsed.spec.data.validation.fraction) == (3, None)


def test_an_integer_may_be_written_with_a_point_as_the_api_server_has_it() -> None:
    parsed = FineTuneJob.parse(job(backoffLimit=2.0, optimization={"seed": 1e9, "learningRate": 1.0}))
    optimization = parsed.spec.optimization
    assert (parsed.spec.backoff_limit, optimization.seed, optimization.learning_rate) == (2, 1_000_000_000, 1.0)


def test_a_problem_of_the_whole_document_has_no_field() -> None:
    assert str(Problem((), "this is not YAML")) == "this is not YAML"
