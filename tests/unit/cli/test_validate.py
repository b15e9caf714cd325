"""`snowmelt validate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from snowmelt_cli.__main__ import app
from snowmelt_cli.manifest import MAX_BYTES, UnreadableError, read_documents
from tests.manifests.cases import Bad, bad_manifests, good_manifests

CRD = Path(__file__).parents[3] / "crds/snowmelt.dev_finetunejobs.yaml"
JOB = """\
apiVersion: snowmelt.dev/v1alpha1
kind: FineTuneJob
metadata: {name: shoes}
spec:
  backbone: {architecture: resnet18}
  data: {train: {uri: "pvc://shoes/train"}}
  output: {uri: "pvc://models/shoes"}
"""


def validate(*files: Path) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, files)])


def refused(tmp_path: Path, text: str | bytes) -> list[str]:
    """What is said of a manifest, without the file's name."""
    file = tmp_path / "job.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    result = validate(file)
    assert result.exit_code == 1
    return [line.removeprefix(str(file)) for line in result.stderr.splitlines()]


@pytest.mark.parametrize("case", [c for c in bad_manifests() if c.refused_by != "change"], ids=lambda c: c.file.stem)
def test_a_bad_manifest_is_refused_with_line_field_and_remedy(case: Bad) -> None:
    result = validate(case.file)
    assert result.exit_code == 1
    (line, *more) = [line for line in result.stderr.splitlines() if case.field in line]
    assert case.says in line, result.stderr
    assert line.removeprefix(f"{case.file}:").partition(":")[0].isdigit()
    assert more == []


@pytest.mark.parametrize("file", good_manifests(), ids=lambda file: file.stem)
def test_a_good_manifest_is_valid(file: Path) -> None:
    result = validate(file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "is valid" in result.stdout


def rules(schema: dict[str, Any]) -> Iterator[str]:
    """The messages of the rules that look at one object alone, not at its change."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"]:
            yield rule["message"]
    for inner in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from rules(inner)


def test_every_rule_of_the_crd_is_broken_by_some_bad_manifest() -> None:
    crd = YAML(typ="safe", pure=True).load(CRD.read_text())
    said = validate(*(case.file for case in bad_manifests())).stderr
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [message for message in rules(schema) if message not in said] == []


def test_every_problem_of_every_file_is_found_in_one_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(JOB + "  suspend: 1\n  backoffLimit: -1\n---\n" + JOB + "  foo: 1\n")
    (tmp_path / "b.yaml").write_text("kind: Pod\n")
    result = validate(tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml")
    found = [line.removeprefix(f"{tmp_path}/").split(": ")[:2] for line in result.stderr.splitlines()]
    assert found == [
        ["a.yaml:8", "spec.suspend"],
        ["a.yaml:9", "spec.backoffLimit"],
        ["a.yaml:18", "spec.foo"],
        ["b.yaml:1", "kind"],
        ["c.yaml", "cannot be read"],
    ]


def test_a_missing_field_is_shown_where_its_object_begins(tmp_path: Path) -> None:
    text = JOB.replace('{train: {uri: "pvc://shoes/train"}}', "\n    train:\n      foo: 1")
    assert [line.partition(": ")[0] for line in refused(tmp_path, text)] == [":7", ":8"]


def test_a_good_document_after_a_bad_one_is_still_checked(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB + "  foo: 1\n---\n" + JOB)
    assert "FineTuneJob shoes is valid" in validate(file).stdout


def test_documents_before_the_one_that_is_no_yaml_are_checked(tmp_path: Path) -> None:
    first, second = refused(tmp_path, JOB + "  foo: 1\n---\na: [1\n")
    assert first.startswith(":8: spec.foo: ")
    assert second.startswith(":11: this is not YAML: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": empty: there is no FineTuneJob in it"),
        ("---\n---\n", ": empty: there is no FineTuneJob in it"),
        ("just text", ":1: a manifest is a map with apiVersion, kind, metadata and spec; this is a single value"),
        (b"\xff\xfe\x00", ": this is not text in UTF-8: byte 0 is 0xff"),
        (JOB + '  suspend: "\\ud800"\n', ':8: spec.suspend: must be true or false, not "\ufffd"'),
        ("apiVersion: v1\n", ":1: kind: this field is required: write kind: FineTuneJob"),
        (JOB + "  suspend: !secret 1\n", ":8: spec.suspend: the YAML tag !secret means nothing here: remove it"),
        (JOB + "  ? [a, b]\n  : 1\n", ":4: spec: line 8: the name of a field cannot be a list or a map"),
        (JOB + "  workers: *all\n", ":8: this is not YAML: found undefined alias 'all'"),
    ],
)
def test_what_is_no_manifest_is_told_so(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    (line,) = refused(tmp_path, bomb)
    assert "more than 100,000 values" in line


def test_a_map_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "a: &a\n  b: *a\n")
    assert "write it without" in line


def test_a_file_too_large_for_a_manifest_is_refused_unread(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, b"#" * (MAX_BYTES + 1))
    assert line.startswith(": larger than 1,048,576 bytes")


def test_an_unreadable_file_is_told_so(tmp_path: Path) -> None:
    assert f"{tmp_path}: cannot be read: is a directory" in validate(tmp_path).stderr.splitlines()


def test_merged_maps_mean_what_they_mean_to_yaml(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {<<: *a}\n")
    (document,) = read_documents(file)
    assert document.value["c"] == {"x": 1, "y": 1, "z": 3}
    assert document.value["d"] == {"x": 1, "y": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


KEYS = st.text(max_size=80)  # YAML wants a key and its colon within 1,024 characters, JSON's escapes included
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@given(value=st.dictionaries(KEYS, VALUES, min_size=1))
def test_json_is_read_as_it_was_and_every_key_has_its_line(folder: Path, value: dict[str, Any]) -> None:
    file = folder / "job.json"
    file.write_text(json.dumps(value, indent=1))
    (document,) = read_documents(file)
    assert document.value == value
    lines = json.dumps(value, indent=1).splitlines()
    for path, line in document.lines.items():
        if path and isinstance(path[-1], str):
            assert lines[line - 1].lstrip().startswith(json.dumps(path[-1]) + ":")


@given(content=st.binary(max_size=200))
def test_no_bytes_are_answered_with_a_stack_trace(folder: Path, content: bytes) -> None:
    file = folder / "job.bin"
    file.write_bytes(content)
    result = validate(file)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)


def test_yaml_that_ends_too_early_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{")
    with pytest.raises(UnreadableError):
        list(read_documents(tmp_path / "a.yaml"))


def test_the_reader_agrees_with_the_yaml_library(tmp_path: Path) -> None:
    for file in good_manifests():
        documents = [document.value for document in read_documents(file)]
        assert documents == list(YAML(typ="safe", pure=True).load_all(file))
