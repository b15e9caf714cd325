"""A change of anything that rows depend on is a change of their key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from snowmelt_trainer.backbones import IMAGENET_PREPROCESSING, split_at
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.data.samples import SampleSet
from snowmelt_trainer.data.transforms import View
from snowmelt_trainer.training.activations import keys
from snowmelt_trainer.training.activations.opening import content_of
from tests.trainer.backbones.networks import from_scratch

CPU = torch.device("cpu")
PREFIX = keys.Prefix("weights", "code", Precision.FLOAT32, "cpu", ("torch 2",))
VIEW = View(32, IMAGENET_PREPROCESSING, Augmentation.LIGHT, seed=0)
PLACE: dict[str, Any] = {"content": "files", "origin": 0, "number": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "others"},
        {"code": "other"},
        {"precision": Precision.BFLOAT16},
        {"device": "cuda"},
        {"libraries": ("torch 3",)},
        {"image_size": 64},
        {"augmentation": Augmentation.STRONG},
        {"preprocessing": replace(IMAGENET_PREPROCESSING, interpolation="bicubic")},
        {"seed": 1},
        {"content": "other files"},
        {"origin": 1},
        {"number": 1},
        {"number": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_ingredient_changes_the_key(change: dict[str, Any]) -> None:
    prefix = replace(PREFIX, **{k: v for k, v in change.items() if hasattr(PREFIX, k)})
    view = replace(VIEW, **{k: v for k, v in change.items() if hasattr(VIEW, k)})
    place = PLACE | {k: v for k, v in change.items() if k in PLACE}
    assert keys.rows_key(prefix, view, **place) != keys.rows_key(PREFIX, VIEW, **PLACE)


def test_the_plain_view_is_the_same_whatever_the_augmentation() -> None:
    plain = PLACE | {"number": None}
    strong = replace(VIEW, augmentation=Augmentation.STRONG, seed=9)
    assert keys.rows_key(PREFIX, VIEW, **plain) == keys.rows_key(PREFIX, strong, **plain)


def _nudge_weight(model: torch.nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("layer1.0.conv1.weight").flatten()[0] += 1e-3


def _move_statistics(model: torch.nn.Module) -> None:
    model.get_buffer("layer1.0.bn1.running_mean")[0] += 1e-3


@pytest.mark.parametrize("change", [_nudge_weight, _move_statistics])
def test_the_prefixs_weights_and_statistics_are_in_its_key_and_the_suffixs_are_not(
    change: Callable[[torch.nn.Module], None],
) -> None:
    built = from_scratch("resnet18", image_size=32)
    late, early = split_at(built.model, built.groups, 4), split_at(built.model, built.groups, 1)
    before = [keys.Prefix.of(cut, Precision.FLOAT32, CPU) for cut in (late, early)]
    change(built.model)
    after = [keys.Prefix.of(cut, Precision.FLOAT32, CPU) for cut in (late, early)]
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert len({prefix.code for prefix in before}) == 2


def test_a_file_that_was_replaced_is_other_content(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    samples = SampleSet((str(tmp_path / "a.png"),), (0,))
    before = content_of(samples)
    assert content_of(samples) == before
    (tmp_path / "a.png").write_bytes(b"22")
    assert content_of(samples) != before
    assert content_of(replace(samples, content="inspected")) == "inspected"
