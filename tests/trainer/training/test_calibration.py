"""A head that a solver has found is delivered as sure of itself as the validation images bear out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load

from snowmelt_trainer.contract import Reason, RunConfig
from snowmelt_trainer.contract.optimization import HeadStart
from snowmelt_trainer.contract.progress import CachePlace, Progress
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training import calibration
from tests.trainer.training.runs import PowerCutError, run, weights, with_optimization
from tests.trainer.training.test_cached_workers import train

Pretrained = Callable[..., RunConfig]
HEAD: dict[str, Any] = {"strategy": "HeadOnly", "stage": {"maxEpochs": 2, "patience": 2}}
CALIBRATED = "s002-e00000-b0000000"


@pytest.fixture
def run_unsure(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], Trained]:
    """A run that delivers a head as the solver leaves it."""

    def trained(config: RunConfig) -> Trained:
        with monkeypatch.context() as patch:
            patch.setattr(calibration, "SURER", (1.0,))
            return run(config)

    return trained


@pytest.fixture
def left(
    pretrained: Pretrained, faint: Path, tmp_path: Path, run_unsure: Callable[[RunConfig], Trained]
) -> tuple[Trained, bytes]:
    """The run and its weights where a head is delivered as the solver leaves it."""
    config = pretrained(faint, output=tmp_path / "left", unfreezing=HEAD)
    trained = run_unsure(config)
    return trained, weights(config, trained)


@pytest.fixture
def unsure(pretrained: Pretrained, faint: Path, tmp_path: Path, run_unsure: Callable[[RunConfig], Trained]) -> float:
    """The least validation loss of the head as the solver leaves it."""
    unfreezing = HEAD | {"target": {"metric": "loss", "atMost": 0.0}}
    trained = run_unsure(pretrained(faint, output=tmp_path / "unsure", unfreezing=unfreezing))
    return float(trained.validation["loss"])


def test_a_solved_head_gives_the_same_answers_and_is_surer_of_them(
    pretrained: Pretrained, faint: Path, tmp_path: Path, left: tuple[Trained, bytes]
) -> None:
    config = pretrained(faint, output=tmp_path / "models", unfreezing=HEAD)
    trained, (unsure, before) = run(config), left
    assert trained.checkpoint == CALIBRATED
    for name in ("accuracy", "balancedAccuracy"):
        assert (trained.validation[name], trained.test[name]) == (unsure.validation[name], unsure.test[name])
    for found, its in ((trained.validation, unsure.validation), (trained.test, unsure.test)):
        assert float(found["loss"]) < float(its["loss"])
    old, new = load(before), load(weights(config, trained))
    factor = (new["fc.weight"] / old["fc.weight"]).unique().item()
    assert factor in calibration.SURER[1:]
    assert torch.equal(new["fc.bias"], factor * old["fc.bias"])
    assert all(torch.equal(new[name], old[name]) for name in old if not name.startswith("fc."))


def test_a_finished_run_is_not_made_surer_again(pretrained: Pretrained, faint: Path, tmp_path: Path) -> None:
    config = pretrained(faint, output=tmp_path / "models", unfreezing=HEAD)
    first = run(config)
    assert (run(config), run(config)) == (first, first)


def test_a_run_cut_off_before_it_delivers_the_same(
    pretrained: Pretrained, faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is left of the cache, and the validation images are looked at anew."""
    whole = pretrained(faint, output=tmp_path / "whole", unfreezing=HEAD)
    broken = pretrained(faint, output=tmp_path / "broken", unfreezing=HEAD)

    def cut(progress: Progress) -> None:
        if progress.checkpoint is not None and progress.checkpoint.epoch == HEAD["stage"]["maxEpochs"]:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(broken, cut)
    again, once = run(broken), run(whole)
    assert again.checkpoint == once.checkpoint == CALIBRATED
    assert weights(broken, again) == weights(whole, once)


@pytest.mark.parametrize(
    ("unfreezing", "optimization"),
    [
        pytest.param(HEAD, {"head_start": HeadStart.EPOCHS}, id="a head of ordinary epochs"),
        pytest.param({"strategy": "Full", "stage": {"maxEpochs": 1}}, {}, id="a network of which all was trained"),
    ],
)
def test_what_no_solver_has_found_is_delivered_as_it_was_trained(
    pretrained: Pretrained, tmp_path: Path, unfreezing: dict[str, Any], optimization: dict[str, Any]
) -> None:
    config = pretrained(output=tmp_path / "models", unfreezing=unfreezing)
    trained = run(with_optimization(config, **optimization))
    assert trained.state.best is not None
    assert trained.checkpoint == f"s001-e{trained.state.best.epoch:05d}-b0000000"


def test_a_target_of_the_loss_that_only_the_surer_head_meets_is_met(
    pretrained: Pretrained, faint: Path, tmp_path: Path, unsure: float
) -> None:
    target = {"metric": "loss", "atMost": 0.99 * unsure}
    trained = run(pretrained(faint, output=tmp_path / "models", unfreezing=HEAD | {"target": target}))
    assert trained.reason is Reason.TARGET_MET


@pytest.mark.parametrize(("share", "rows"), [(0.99, 1), (0.01, 2)], ids=["met by the surer head", "missed"])
def test_everything_is_unfrozen_only_where_the_surer_head_misses_the_target_of_the_loss(
    pretrained: Pretrained, faint: Path, tmp_path: Path, unsure: float, *, share: float, rows: int
) -> None:
    target = {"metric": "loss", "atMost": share * unsure}
    two_stages = {"stage": {"maxEpochs": 2, "patience": 2}, "target": target}
    trained = run(pretrained(faint, output=tmp_path / "models", unfreezing=two_stages))
    assert len(trained.state.rows) == rows
    assert (trained.reason is Reason.TARGET_MET, trained.checkpoint == CALIBRATED) == (rows == 1, rows == 1)


def test_two_workers_deliver_the_same_head(pretrained: Pretrained, faint: Path, tmp_path: Path) -> None:
    config = pretrained(faint, output=tmp_path / "models", unfreezing=HEAD)
    mp.spawn(train, (2, config.model_dump_json(by_alias=True), CachePlace.MEMORY, str(tmp_path)), nprocs=2)
    one, other = (Trained.model_validate_json((tmp_path / f"trained-{rank}.json").read_text()) for rank in range(2))
    assert (one.checkpoint, one.validation, one.test) == (other.checkpoint, other.validation, other.test)
    assert one.checkpoint == CALIBRATED
