from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from snowmelt_trainer.data import TargetData

Opened = Callable[..., TargetData]
TRAIN = {"uri": "pvc://shoes/train"}


def test_classes_are_the_sorted_sub_folders(shoes: Path, opened: Opened) -> None:
    data = opened(train=TRAIN, test={"uri": "pvc://shoes/test"})
    assert data.classes == ("boot", "clog")
    assert data.test is not None
    assert [Path(p).parent.name for p in data.test.paths] == ["boot", "boot", "clog", "clog"]
    assert data.test.labels == (0, 0, 1, 1)
    assert data.warnings == ()


def test_images_may_lie_at_any_depth_and_hidden_ones_are_ignored(
    shoes: Path, opened: Opened, paint: Callable[..., Path]
) -> None:
    paint(shoes / "train/boot/winter/lined/deep.png")
    paint(shoes / "train/boot/.thumbnails/small.png")
    paint(shoes / "train/.cache/none.png")
    (shoes / "train/boot/.DS_Store").write_bytes(b"x")
    data = opened(train=TRAIN)
    names = {Path(p).name for p in data.train.paths + data.validation.paths}
    assert "deep.png" in names
    assert not names & {"small.png", "none.png", ".DS_Store"}
    assert len(data.train) + len(data.validation) == 17


def test_files_that_are_no_images_are_left_out_with_a_warning(shoes: Path, opened: Opened) -> None:
    (shoes / "train/boot/notes.txt").write_text("left ones only")
    (warning,) = opened(train=TRAIN).warnings
    assert "1 file" in warning
    assert "notes.txt" in warning


def test_a_link_back_to_a_parent_ends_in_no_loop(shoes: Path, opened: Opened) -> None:
    (shoes / "train/boot/again").symlink_to(shoes / "train/boot")
    data = opened(train=TRAIN)
    assert len(data.train) + len(data.validation) == 16


def test_every_class_has_its_share_of_the_validation_data(shoes: Path, opened: Opened) -> None:
    data = opened(train=TRAIN, validation={"fraction": 0.5})
    assert Counter(data.validation.labels) == {0: 5, 1: 3}
    assert Counter(data.train.labels) == {0: 5, 1: 3}
    assert not set(data.train.paths) & set(data.validation.paths)


def test_the_split_follows_from_the_seed(shoes: Path, opened: Opened) -> None:
    again = [opened(train=TRAIN, validation={"fraction": 0.5}, seed=seed).validation.paths for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_validation_data_of_its_own_leaves_the_training_data_whole(shoes: Path, opened: Opened) -> None:
    data = opened(train=TRAIN, validation={"uri": "pvc://shoes/test"})
    assert len(data.train) == 16
    assert len(data.validation) == 4


def test_a_class_with_one_image_is_trained_on_and_named_in_a_warning(
    shoes: Path, opened: Opened, paint: Callable[..., Path]
) -> None:
    paint(shoes / "train/mule/only.png")
    data = opened(train=TRAIN)
    assert data.train.labels.count(2) == 1
    assert 2 not in data.validation.labels
    assert "mule" in data.warnings[0]


def test_duplicates_across_splits_are_counted_and_shown(shoes: Path, opened: Opened) -> None:
    (shoes / "test/boot/copy.png").write_bytes((shoes / "train/boot/3.png").read_bytes())
    data = opened(train=TRAIN, validation={"uri": "pvc://shoes/test"}, test={"uri": "pvc://shoes/test"})
    assert data.duplicates_across_splits == 2
    assert "1 of 5 validation images" in data.warnings[0]
    assert "copy.png" in data.warnings[1]
