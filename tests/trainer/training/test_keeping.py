"""Checkpoints are written while training goes on, and what they hold does not change under the writer."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.contract.reasons import Reason
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training import beside, keeping, rig, stage
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.copies import FileCopies
from snowmelt_trainer.training.state import RunState
from snowmelt_trainer.training.storage import write_file
from tests.trainer.training.runs import run, weights

Configure = Callable[..., RunConfig]
FULL = {"strategy": "Full", "stage": {"maxEpochs": 3, "patience": 3}}
WITHIN_S = 60.0


def trained(config: RunConfig, send: Callable[[Progress], None] = lambda _: None) -> bytes:
    """Runs it, and returns the delivered weights."""
    return weights(config, run(config, send))


def hold_up(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """From now on each checkpoint but the last of FULL is held up until a step of the next epoch was made. Returns, of
    each, whether that came to be."""
    stepped, held_up = threading.Event(), []
    step, write, keep = stage.StageTraining._step, CheckpointStore.write, keeping.Keeper.keep

    def slowly(store: CheckpointStore, name: str, *content: object) -> None:
        last = name.startswith("s001-e00003")
        held_up.append(last or stepped.wait(WITHIN_S))
        write(store, name, *content)  # type: ignore[arg-type]

    def noted(self: stage.StageTraining, number: int, batch: object) -> None:
        step(self, number, batch)  # type: ignore[arg-type]
        if number > 0:  # the first is reported by then
            stepped.set()

    def begun(self: keeping.Keeper, state: object, *, passable: bool = False) -> None:
        stepped.clear()
        keep(self, state, passable=passable)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointStore, "write", slowly)
    monkeypatch.setattr(stage.StageTraining, "_step", noted)
    monkeypatch.setattr(keeping.Keeper, "keep", begun)
    return held_up


def test_the_next_epoch_trains_while_a_checkpoint_is_written(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what it holds is of before the steps of that epoch."""
    expected = trained(configure(unfreezing=FULL))
    held_up = hold_up(monkeypatch)
    assert trained(configure(unfreezing=FULL, output=tmp_path / "slowly")) == expected
    assert held_up == [True, True, True]


def test_a_late_checkpoint_does_not_turn_status_back(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_up(monkeypatch)
    monkeypatch.setattr(rig, "REPORT_EVERY_SECONDS", 0.0)
    sent: list[Progress] = []
    trained(configure(unfreezing=FULL), sent.append)
    late = [one for one in sent if one.checkpoint is not None and one.checkpoint.step < one.progress.step]
    assert late
    steps = [one.progress.step for one in sent]
    assert steps == sorted(steps)


def test_training_does_not_wait_for_slow_storage_but_passes_epochs_over(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first checkpoint takes as long as five epochs. What is delivered is the same, and no checkpoint that was
    written refers to a best one that was not."""
    long = {"strategy": "Full", "stage": {"maxEpochs": 8, "patience": 8}}
    expected = trained(configure(unfreezing=long))
    write, keep = CheckpointStore.write, keeping.Keeper.keep
    fifth, written = threading.Event(), list[str]()

    def slowly(
        store: CheckpointStore, name: str, model: object, optimizer: object, state: RunState, *rest: object
    ) -> None:
        if not written:
            assert fifth.wait(WITHIN_S)
        write(store, name, model, optimizer, state, *rest)  # type: ignore[arg-type]
        written.append(name)
        assert state.best is not None
        assert state.best.checkpoint in written

    def noted(self: keeping.Keeper, state: RunState, *, passable: bool = False) -> None:
        keep(self, state, passable=passable)
        if state.epoch == 5:
            fifth.set()

    monkeypatch.setattr(CheckpointStore, "write", slowly)
    monkeypatch.setattr(keeping.Keeper, "keep", noted)
    assert trained(configure(unfreezing=long, output=tmp_path / "slowly")) == expected
    assert written[0].startswith("s001-e00001")
    assert written[-1].startswith("s001-e00008")
    assert len(written) < 7


def test_epochs_that_would_cost_too_much_to_write_are_passed_over_and_the_best_of_them_is_not_lost(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """There is room for a checkpoint after the first epoch, and then for none. What is delivered is the same, and no
    checkpoint that was written refers to a best one that was not."""
    long = {"strategy": "Full", "stage": {"maxEpochs": 8, "patience": 8}}
    expected = trained(configure(unfreezing=long))
    write, written = CheckpointStore.write, list[tuple[str, bool]]()

    def noted(
        store: CheckpointStore, name: str, model: object, optimizer: object, state: RunState, *rest: object
    ) -> None:
        write(store, name, model, optimizer, state, *rest)  # type: ignore[arg-type]
        written.append((name, optimizer is not None))
        assert state.best is not None
        assert state.best.checkpoint in [one for one, _ in written]

    monkeypatch.setattr(CheckpointStore, "write", noted)
    monkeypatch.setattr(keeping.Keeper, "free", property(lambda keeper: keeper._under_way is None and not written))
    assert trained(configure(unfreezing=long, output=tmp_path / "paced")) == expected
    assert written[0] == ("s001-e00001-b0000000", True)
    assert written[-1] == ("s001-e00008-b0000000", True)
    assert len(written) <= 3
    assert all(not optimizer for _, optimizer in written[1:-1])


def test_an_epoch_soon_after_a_stages_last_checkpoint_is_passed_over_as_well(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next stage goes on with the rest that the one before has earned; what ends a stage is always written."""
    monkeypatch.setattr(beside, "SHARE", 1e-9)
    monkeypatch.setattr(beside, "CHEAP_SECONDS", 0.0)
    written: list[str] = []
    write = CheckpointStore.write

    def noted(store: CheckpointStore, name: str, *content: object) -> None:
        write(store, name, *content)  # type: ignore[arg-type]
        written.append(name)

    monkeypatch.setattr(CheckpointStore, "write", noted)
    two = {"strategy": "Custom", "stages": [{"unfreeze": ["head"]}, {"unfreeze": ["*"]}]}
    trained(configure(unfreezing=two | {"stage": {"maxEpochs": 3, "patience": 3}}))
    later = [name for name in written if name.startswith("s002") and "-e00003-" not in name]
    assert written[0].startswith("s001-e00001")
    assert any(name.startswith("s001-e00003") for name in written)
    assert any(name.startswith("s002-e00003") for name in written)
    assert len(later) <= 1  # the best, with the stage's last


def test_a_run_that_is_cut_off_goes_on_from_before_the_epochs_that_were_passed_over(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It ends as if it had not been cut off, though its third and fourth epoch lay in no checkpoint."""
    long = {"strategy": "Full", "stage": {"maxEpochs": 6, "patience": 6}}
    expected = trained(configure(unfreezing=long))
    keep, cut = keeping.Keeper.keep, configure(unfreezing=long, output=tmp_path / "cut")

    def powerless(self: keeping.Keeper, state: RunState, *, passable: bool = False) -> None:
        keep(self, state, passable=passable)
        self.settle()
        if state.epoch == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keeping.Keeper, "keep", powerless)
        patch.setattr(keeping.Keeper, "free", property(lambda _: len(written(cut)) < 2))
        with pytest.raises(KeyboardInterrupt):
            trained(cut)
    assert written(cut) == ["s001-e00001-b0000000", "s001-e00002-b0000000"]
    assert trained(cut) == expected


def written(config: RunConfig) -> list[str]:
    folder = Layout.of(config).checkpoints
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith(".")) if folder.exists() else []


def test_status_says_that_a_checkpoint_is_there_only_when_it_is(configure: Configure, tmp_path: Path) -> None:
    config = configure(unfreezing=FULL)
    there = []

    def look(progress: Progress) -> None:
        if progress.checkpoint is not None:
            place = f"s{progress.checkpoint.stage:03d}-e{progress.checkpoint.epoch:05d}-b0000000"
            there.append((Layout.of(config).checkpoints / place / "manifest.json").exists())

    trained(config, look)
    assert there
    assert all(there)


def test_a_disk_that_is_full_ends_the_run_with_its_reason(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint finds no room; the first is kept."""
    config, write = configure(unfreezing=FULL), FileCopies.pack_optimizer
    written = []

    def no_room(copies: FileCopies, file: BinaryIO) -> None:
        written.append(1)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(copies, file)

    monkeypatch.setattr(FileCopies, "pack_optimizer", no_room)
    with pytest.raises(RunError, match="no space left") as caught:
        trained(config)
    assert caught.value.reason is Reason.STORAGE_FULL
    newest = CheckpointStore(Layout.of(config).checkpoints).newest()
    assert newest is not None
    assert newest.state.epoch == 1


def test_a_full_disk_is_told_through_torch_too() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(Path("/dev/full"), lambda file: torch.save({"weight": torch.zeros(100_000)}, file))
    assert caught.value.errno == errno.ENOSPC
