"""Checkpoints on a real disk: whole or not at all, the damaged passed over, no more kept than needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.checkpoint import CheckpointStore, checkpoint_name
from snowmelt_trainer.training.packing import Frozen, pack_model
from snowmelt_trainer.training.state import Best, RunState
from snowmelt_trainer.training.storage import replace_file, storage_errors


def written(store: CheckpointStore, epoch: int, best_epoch: int = 1) -> str:
    name = checkpoint_name(1, epoch, 0)
    best = Best(checkpoint=checkpoint_name(1, best_epoch, 0), stage=1, epoch=best_epoch, values={Metric.ACCURACY: 0.5})
    store.write(name, b"model %d" % epoch, b"optimizer", RunState(fingerprint="f", epoch=epoch, best=best))
    return name


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())


def test_an_empty_place_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").newest() is None


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in range(1, 6):
        written(store, epoch, best_epoch=min(epoch, 2))
    assert names(store) == [checkpoint_name(1, epoch, 0) for epoch in (2, 4, 5)]
    newest = store.newest()
    assert newest is not None
    assert newest.model == b"model 5"


def kept_weights(store: CheckpointStore, epoch: int) -> str:
    """A checkpoint of the best weights, none to go on from."""
    name = checkpoint_name(1, epoch, 0)
    best = Best(checkpoint=name, stage=1, epoch=epoch, values={Metric.ACCURACY: 0.5})
    store.write(name, b"model %d" % epoch, None, RunState(fingerprint="f", epoch=epoch, best=best))
    return name


def test_best_weights_alone_are_kept_but_none_goes_on_from_them(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    written(store, 1)
    best = kept_weights(store, 2)
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 1
    for epoch in (3, 4):
        written(store, epoch, best_epoch=2)
    assert names(store) == [checkpoint_name(1, epoch, 0) for epoch in (2, 3, 4)]
    assert store.read_model(best) == b"model 2"


def test_best_weights_alone_do_not_take_the_place_of_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    """Where the newest is damaged, there is still the one before."""
    store = CheckpointStore(tmp_path)
    written(store, 1)
    kept_weights(store, 2)
    newest = written(store, 3, best_epoch=2)
    (tmp_path / newest / "optimizer.pt").write_bytes(b"")
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 1


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    written(store, 1)
    newest = tmp_path / written(store, 2) / file
    data = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes(data[:-3] if damage == "truncated" else bytes([data[0] ^ 1]) + data[1:])
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 1


def test_a_checkpoint_whose_best_is_damaged_is_passed_over(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    written(store, 1)
    written(store, 2, best_epoch=1)
    written(store, 3, best_epoch=3)
    (tmp_path / checkpoint_name(1, 3, 0) / "model.safetensors").write_bytes(b"")
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 2
    (tmp_path / checkpoint_name(1, 1, 0) / "model.safetensors").write_bytes(b"")
    assert store.newest() is None


def test_what_a_crash_left_half_written_is_neither_read_nor_in_the_way(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    written(store, 1)
    half = tmp_path / f".writing-{checkpoint_name(1, 2, 0)}"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 1
    written(store, 2)
    assert names(store) == [checkpoint_name(1, 1, 0), checkpoint_name(1, 2, 0)]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


HEAD = {"3.weight", "3.bias"}


def written_by_parts(store: CheckpointStore, epoch: int, model: nn.Module) -> Path:
    name = checkpoint_name(1, epoch, 0)
    frozen = Frozen.of(model, HEAD)
    assert frozen is not None
    head = pack_model(model, without=model.state_dict().keys() - HEAD)
    store.write(name, head, b"optimizer", RunState(fingerprint="f", epoch=epoch), frozen)
    return store.directory / name


def test_what_is_frozen_is_linked_and_a_reader_sees_one_model(tmp_path: Path) -> None:
    store, model = CheckpointStore(tmp_path), network()
    first, second = written_by_parts(store, 1, model), written_by_parts(store, 2, model)
    assert (first / "frozen.safetensors").samefile(second / "frozen.safetensors")
    found = store.newest()
    assert found is not None
    assert found.model == pack_model(model)


def test_other_frozen_tensors_are_written_anew(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first, second = written_by_parts(store, 1, network(0)), written_by_parts(store, 2, network(1))
    assert not (first / "frozen.safetensors").samefile(second / "frozen.safetensors")
    assert [found.model for found in map(store.read, (first.name, second.name)) if found] == [
        pack_model(network(0)),
        pack_model(network(1)),
    ]


def test_a_storage_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store, model = CheckpointStore(tmp_path), network()
    first, second = written_by_parts(store, 1, model), written_by_parts(store, 2, model)
    assert not (first / "frozen.safetensors").samefile(second / "frozen.safetensors")
    assert [found.model for found in map(store.read, (first.name, second.name)) if found] == [pack_model(model)] * 2


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_checkpoint_without_sound_frozen_tensors_is_passed_over(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    written(store, 1)
    file = written_by_parts(store, 2, network()) / "frozen.safetensors"
    data = file.read_bytes()
    file.unlink()
    if damage == "flipped":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = store.newest()
    assert found is not None
    assert found.state.epoch == 1


def test_the_order_of_names_is_that_of_training() -> None:
    order = [(1, 0, 7), (1, 1, 0), (1, 9, 100), (1, 10, 0), (2, 0, 5), (11, 0, 1)]
    assert sorted(checkpoint_name(*place) for place in order) == [checkpoint_name(*place) for place in order]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.STORAGE_FULL),
        (errno.EDQUOT, Reason.STORAGE_FULL),
        (errno.EACCES, Reason.OUTPUT_UNWRITABLE),
        (errno.EROFS, Reason.OUTPUT_UNWRITABLE),
    ],
)
def test_what_the_system_refuses_has_a_reason_and_names_the_place(code: int, reason: Reason) -> None:
    with pytest.raises(RunError) as caught, storage_errors(Path("/models")):
        raise OSError(code, "refused", "/models/digits/model.safetensors")
    assert caught.value.reason is reason
    assert "/models/digits/model.safetensors" in caught.value.message


def test_a_file_system_that_is_full_ends_as_storage_full(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught, storage_errors(tmp_path), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"model")
    assert caught.value.reason is Reason.STORAGE_FULL


def test_a_replaced_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    replace_file(tmp_path / "record.json", b"one")
    replace_file(tmp_path / "record.json", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert (tmp_path / "record.json").read_bytes() == b"two"
