"""Copies of what training changes: the same bit for bit after a step more, in files or in memory, and soon let go."""

from __future__ import annotations

import io
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import nn

from snowmelt_trainer.contract.optimization import OptimizerName
from snowmelt_trainer.training import copies
from snowmelt_trainer.training.activations import resources
from snowmelt_trainer.training.copies import FileCopies, TensorCopies, take_copies
from snowmelt_trainer.training.optimizers import build_optimizer
from snowmelt_trainer.training.packing import pack_model, unpack_model, unpack_optimizer

Trained = tuple[nn.Module, torch.optim.Optimizer]


def network(name: OptimizerName = OptimizerName.ADAMW) -> Trained:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    groups = [{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.1}]
    return model, build_optimizer(name, groups, torch.device("cpu"))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def packed(pack: Callable[[BinaryIO], None]) -> bytes:
    file = io.BytesIO()
    pack(file)
    return file.getvalue()


@pytest.fixture(params=[FileCopies, TensorCopies])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type:
    """Where the copies of the test's small network are to lie."""
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    if request.param is FileCopies:
        monkeypatch.setattr(copies, "SMALL", 0)
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", list(OptimizerName))
def test_weights_and_optimizer_come_back_bit_for_bit(name: OptimizerName, kind: type) -> None:
    straight, resumed = network(name), network(name)
    step(*straight, 1)
    last_step = {"weight": torch.randn(2, 3)}
    taken = take_copies(straight[0], straight[0].state_dict(), straight[1], last_step)
    assert isinstance(taken, kind)
    step(*straight, 2)
    unpack_model(resumed[0], packed(taken.pack_model))
    assert unpack_optimizer(resumed[1], packed(taken.pack_optimizer))["weight"].equal(last_step["weight"])
    step(*resumed, 2)
    assert pack_model(straight[0]) == pack_model(resumed[0])


def test_no_tensors_are_no_bytes(kind: type) -> None:
    model, optimizer = network()
    step(model, optimizer, 1)
    taken = take_copies(model, (), optimizer)
    assert isinstance(taken, kind)
    assert packed(taken.pack_model) == b""


def test_tensors_that_were_packed_take_no_memory_any_more() -> None:
    model, optimizer = network()
    step(model, optimizer, 1)
    taken = take_copies(model, model.state_dict(), optimizer, {"weight": torch.randn(2, 3)})
    assert isinstance(taken, TensorCopies)
    held = [weakref.ref(one) for one in [*taken.model.values(), *taken.last_step.values()]]
    held += [weakref.ref(moments["exp_avg"]) for moments in taken.optimizer["state"].values()]
    packed(taken.pack_optimizer)
    packed(taken.pack_model)
    assert not any(copy() is not None for copy in held)


def test_files_leave_nothing_behind_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not even of a process that is killed before it has packed them: they have no name."""
    monkeypatch.setattr(copies, "SMALL", 0)
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    taken = take_copies(model := network()[0], model.state_dict())
    assert isinstance(taken, FileCopies)
    assert not list(tmp_path.iterdir())
    packed(taken.pack_model)
    assert taken.model.closed


def no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 9_000, 1_000))


def no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path / "not there"))


def full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path))
    file = Path("/dev/full").open("wb")  # noqa: SIM115
    monkeypatch.setattr(Path, "open", lambda *_: file)


@pytest.mark.parametrize("trouble", [no_room, no_folder, full])
def test_a_disk_that_does_not_take_the_copies_leaves_them_in_memory(
    trouble: Callable[[pytest.MonkeyPatch, Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(copies, "SMALL", 0)
    model, optimizer = network()
    step(model, optimizer, 1)
    expected = pack_model(model)
    trouble(monkeypatch, tmp_path)
    taken = take_copies(model, model.state_dict(), optimizer)
    assert isinstance(taken, TensorCopies)
    assert packed(taken.pack_model) == expected
    assert not list(tmp_path.iterdir())
