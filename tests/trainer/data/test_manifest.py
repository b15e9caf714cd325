from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as untyped_parquet

from snowmelt_trainer.contract import Reason
from snowmelt_trainer.data import TargetData
from snowmelt_trainer.errors import RunError

parquet: Any = untyped_parquet
Opened = Callable[..., TargetData]
ROWS = [
    {"uri": f"train/{name}/{i}.png", "label": name, "split": split}
    for name in ("boot", "clog")
    for i, split in enumerate(("train", "train", "train", "validation", "test"))
]


def as_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(rows[0])
    path.write_text("\n".join([",".join(columns), *(",".join(row[c] for c in columns) for row in rows)]) + "\n")
    return path


def as_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS = {"list.csv": as_csv, "list.jsonl": as_jsonl, "list.parquet": as_parquet}


@pytest.mark.parametrize("name", WRITERS)
def test_a_manifest_names_images_labels_and_splits(shoes: Path, opened: Opened, name: str) -> None:
    WRITERS[name](shoes / name, ROWS)
    data = opened(train={"uri": f"pvc://shoes/{name}"})
    assert data.classes == ("boot", "clog")
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 2)
    assert data.test.paths == (str(shoes / "train/boot/4.png"), str(shoes / "train/clog/4.png"))


@pytest.mark.parametrize("name", WRITERS)
def test_without_a_split_column_validation_is_held_out(shoes: Path, opened: Opened, name: str) -> None:
    WRITERS[name](shoes / name, [{"uri": row["uri"], "label": row["label"]} for row in ROWS])
    data = opened(train={"uri": f"pvc://shoes/{name}"}, validation={"fraction": 0.4})
    assert (len(data.train), len(data.validation), data.test) == (6, 4, None)


def test_whole_numbers_are_class_names(shoes: Path, opened: Opened) -> None:
    as_jsonl(shoes / "n.jsonl", [{**row, "label": 3 if row["label"] == "boot" else 12} for row in ROWS])  # type: ignore[dict-item]
    assert opened(train={"uri": "pvc://shoes/n.jsonl"}).classes == ("12", "3")


def test_uris_may_be_relative_or_name_the_volume_or_the_machine(shoes: Path, opened: Opened) -> None:
    prefixes = ("", "pvc://shoes/", f"file://{shoes}/")
    rows = [{**row, "uri": prefixes[i % 3] + row["uri"]} for i, row in enumerate(ROWS)]
    data = opened(train={"uri": f"file://{as_csv(shoes / 'list.csv', rows)}"})
    assert all(Path(path).is_file() for path in data.train.paths)


def test_one_manifest_may_serve_all_splits(shoes: Path, opened: Opened) -> None:
    here = {"uri": f"pvc://shoes/{as_csv(shoes / 'list.csv', ROWS).name}"}
    data = opened(train=here, validation=here, test=here)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test), data.warnings) == (6, 2, 2, ())


def test_rows_that_an_explicit_source_displaces_are_named_in_a_warning(shoes: Path, opened: Opened) -> None:
    as_csv(shoes / "list.csv", ROWS)
    data = opened(train={"uri": "pvc://shoes/list.csv"}, validation={"fraction": 0.5}, test={"uri": "pvc://shoes/test"})
    assert ["2 rows of split validation" in data.warnings[0], "2 rows of split test" in data.warnings[1]] == [
        True,
        True,
    ]
    assert len(data.validation) == 4


BROKEN = {
    "no_label.csv": ("uri,label\na.png,boot\nb.png,\n", "no_label.csv:3: label is missing"),
    "no_uri.csv": ("uri,label\n,boot\n", "no_uri.csv:2: uri is missing"),
    "no_column.csv": ("path,label\na.png,boot\n", "has no column uri; its columns are path, label"),
    "too_many.csv": ("uri,label\na.png,boot,train,7\n", "too_many.csv:2: more values than columns"),
    "quote.csv": ('uri,label\n"a.png,boot\n', "is no csv file"),
    "split.csv": (
        "uri,label,split\na.png,boot,holdout\n",
        "split.csv:2: split 'holdout' is not one of train, validation",
    ),
    "scheme.csv": (
        "uri,label\ns3://bucket/a.png,boot\n",
        "scheme.csv:2: uri 's3://bucket/a.png': only file:// and pvc://",
    ),
    "latin1.csv": ("uri,label\nd\udce9.png,boot\n", "is no csv file"),
    "endless.jsonl": ('{"uri": "' + "a" * 70_000 + '"}\n', "endless.jsonl:1: the line is longer than 65536"),
    "array.jsonl": ('{"uri": "a.png", "label": "x"}\n[1]\n', "array.jsonl:2: is no JSON object"),
    "cut.jsonl": ('{"uri": "a.png"\n', "cut.jsonl:1: is no JSON"),
    "deep.jsonl": ("[" * 60_000 + "\n", "deep.jsonl:1: is no JSON"),
    "label.jsonl": ('{"uri": "a.png", "label": true}\n', "label.jsonl:1: label is missing"),
    "text.parquet": ("uri,label\n", "is no parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused_naming_file_and_line(shoes: Path, opened: Opened, name: str) -> None:
    text, expected = BROKEN[name]
    (shoes / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RunError) as caught:
        opened(train={"uri": f"pvc://shoes/{name}"})
    assert caught.value.reason is Reason.DATA_UNREADABLE
    assert expected in caught.value.message


@pytest.mark.parametrize(
    "uri",
    ["../secret.png", "/etc/passwd", "file:///etc/passwd", "pvc://other/a.png", "train/link.png", "train/all/b.png"],
)
def test_a_manifest_on_a_volume_cannot_name_a_file_outside_of_it(
    shoes: Path, opened: Opened, paint: Callable[..., Path], uri: str
) -> None:
    secret = paint(shoes.parent / "secret.png")
    (shoes / "train/link.png").symlink_to(secret)
    (shoes / "train/all").symlink_to(shoes.parent)
    as_csv(shoes / "list.csv", [*ROWS, {"uri": uri, "label": "boot", "split": "train"}])
    with pytest.raises(RunError, match=r"list\.csv:12: leads out of its volume") as caught:
        opened(train={"uri": "pvc://shoes/list.csv"})
    assert caught.value.reason is Reason.DATA_UNREADABLE


@pytest.mark.parametrize("link", ["train/mule", "train/boot/more"])
def test_a_folder_on_a_volume_cannot_link_to_a_folder_outside_of_it(
    shoes: Path, opened: Opened, paint: Callable[..., Path], link: str
) -> None:
    paint(shoes.parent / "other/secret.png")
    (shoes / link).symlink_to(shoes.parent / "other")
    with pytest.raises(RunError, match="leads out of its volume"):
        opened(train={"uri": "pvc://shoes/train"})


def test_a_folder_on_a_volume_cannot_link_outside_of_it(
    shoes: Path, opened: Opened, paint: Callable[..., Path]
) -> None:
    (shoes / "train/boot/linked.png").symlink_to(paint(shoes.parent / "secret.png"))
    with pytest.raises(RunError, match=r"linked\.png: leads out of its volume"):
        opened(train={"uri": "pvc://shoes/train"})
