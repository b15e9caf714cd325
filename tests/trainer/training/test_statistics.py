"""BatchNorm counts its statistics anew where the images lie far from those of pretraining, and only where it helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import CachePlace, Progress
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training import features, statistics
from tests.trainer.training.runs import PowerCutError, prefer_anew, run, weights
from tests.trainer.training.test_cached_workers import train

Configure = Callable[..., RunConfig]
THEN_EVERYTHING = {"strategy": "Gradual", "maxStages": 2, "stage": {"maxEpochs": 1}}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses of the heads that are compared from here on."""
    seen: list[float] = []
    loss = statistics._loss_of_a_head

    def noted(*arguments: Any) -> float:
        seen.append(loss(*arguments))
        return seen[-1]

    monkeypatch.setattr(statistics, "_loss_of_a_head", noted)
    return seen


def train_anew(rank: int, size: int, config_json: str, folder: str) -> None:
    """As `train`, in a process of its own, where a head is the better for new statistics."""
    prefer_anew()
    train(rank, size, config_json, CachePlace.MEMORY, folder)


def counted(model: bytes) -> dict[str, torch.Tensor]:
    """The first BatchNorm's mean and variance."""
    return {name: one for name, one in load(model).items() if name.startswith("conv1.1.running")}


@pytest.mark.usefixtures("helps")
def test_images_far_from_those_of_pretraining_are_counted_anew_and_status_says_so(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path
) -> None:
    sent: list[Progress] = []
    config = pretrained(faint, output=tmp_path / "anew")
    found = counted(weights(config, run(config, sent.append)))
    (warning,) = [text for text in sent[-1].warnings if "BatchNorm" in text]
    assert "counted anew on" in warning
    kept = pretrained(faint, output=tmp_path / "kept", norms="Pretrained")
    before = counted(weights(kept, run(kept)))
    assert found.keys() == before.keys() == {"conv1.1.running_mean", "conv1.1.running_var"}
    assert all(not torch.allclose(found[name], before[name], rtol=0.05) for name in found)


@pytest.mark.usefixtures("helps")
def test_what_is_counted_anew_is_the_mean_and_variance_of_the_images(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch, as torch itself has them."""
    monkeypatch.setattr(features, "BATCH", 1000)
    config = pretrained(faint, output=tmp_path / "anew")
    inputs: list[torch.Tensor] = []
    count = statistics._count

    def noted(rig: statistics.Rig, training: object) -> None:
        hook = rig.model.get_submodule("conv1.1").register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        count(rig, training)  # type: ignore[arg-type]
        hook.remove()

    monkeypatch.setattr(statistics, "_count", noted)
    found = counted(weights(config, run(config)))
    assert torch.allclose(found["conv1.1.running_mean"], inputs[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert torch.allclose(found["conv1.1.running_var"], inputs[0].var((0, 2, 3)), rtol=1e-3)


def test_images_like_those_of_pretraining_leave_everything_as_it_is(
    pretrained: Callable[..., RunConfig], tmp_path: Path
) -> None:
    sent: list[Progress] = []
    auto, kept = pretrained(output=tmp_path / "auto"), pretrained(output=tmp_path / "kept", norms="Pretrained")
    assert weights(auto, run(auto, sent.append)) == weights(kept, run(kept))
    assert not any("BatchNorm" in text for text in sent[-1].warnings)


def test_where_the_head_is_none_the_better_for_it_everything_stays_as_it_is(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So few images have left a network that new statistics make worse."""
    caplog.set_level("INFO", "snowmelt_trainer.training.statistics")
    auto = pretrained(faint, output=tmp_path / "auto")
    kept = pretrained(faint, output=tmp_path / "kept", norms="Pretrained")
    assert weights(auto, run(auto)) == weights(kept, run(kept))
    (said,) = caplog.messages
    before, after = map(float, re.findall(r"\d\.\d{4}", said))
    assert after > before


def test_no_heads_are_compared_where_everything_is_trained_next_in_any_case(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, compared: list[float]
) -> None:
    run(pretrained(faint, output=tmp_path / "models", unfreezing=THEN_EVERYTHING))
    assert not compared


@pytest.mark.parametrize("otherwise", [{"target": {"atLeast": 1.0}}, {"maxStages": 3}, {"strategy": "HeadOnly"}])
def test_heads_are_compared_where_they_may_be_what_is_delivered_or_stages_come_in_between(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, compared: list[float], otherwise: dict[str, Any]
) -> None:
    run(pretrained(faint, output=tmp_path / "models", unfreezing=THEN_EVERYTHING | otherwise))
    assert len(compared) == 2


@pytest.mark.usefixtures("helps")
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_is_cut_off_ends_as_if_it_had_not_been(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, epochs: int
) -> None:
    """Before its first checkpoint, or after it."""
    unfreezing = {"strategy": "Gradual", "maxStages": 3, "stage": {"maxEpochs": 2}}
    whole = pretrained(faint, output=tmp_path / "whole", unfreezing=unfreezing)
    broken = pretrained(faint, output=tmp_path / "broken", unfreezing=unfreezing)

    def cut(progress: Progress) -> None:
        if progress.stage is not None and (progress.checkpoint is not None) >= epochs:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(broken, cut)
    assert weights(broken, run(broken)) == weights(whole, run(whole))


@pytest.mark.usefixtures("helps")
def test_two_workers_have_the_same_statistics(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path
) -> None:
    """The trainer compares the workers' weights and buffers at each stage's beginning and end; here with the solver,
    whose stage changes no buffer."""
    config = pretrained(faint, output=tmp_path / "two")
    mp.spawn(train_anew, (2, config.model_dump_json(by_alias=True), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    trained = Trained.model_validate_json((tmp_path / "trained-1.json").read_text())
    alone = pretrained(faint, output=tmp_path / "one")
    together, one = counted(weights(config, trained)), counted(weights(alone, run(alone)))
    assert all(torch.equal(together[name], one[name]) for name in one)
