"""After the first epochs of everything, the head is found once more for what the layers beneath it have become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.optimization import HeadStart, Schedule
from snowmelt_trainer.contract.progress import CachePlace, Progress
from snowmelt_trainer.contract.unfreezing import Metric
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training import calibration, evaluate, renewal, stage
from snowmelt_trainer.training import rig as rig_module
from snowmelt_trainer.training.calibration import SURER
from snowmelt_trainer.training.features import SomeImages
from snowmelt_trainer.training.head_start import HeadSolver
from snowmelt_trainer.training.metrics import Counts
from snowmelt_trainer.training.renewal import images_to_refit
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState
from tests.trainer.training.runs import PowerCutError, run, weights, with_optimization
from tests.trainer.training.test_cached_workers import train

Pretrained = Callable[..., RunConfig]


def then_everything(epochs: int) -> dict[str, Any]:
    return {"strategy": "Gradual", "maxStages": 2, "stage": {"maxEpochs": epochs, "patience": epochs}}


@dataclass
class Refitted:
    """After which epochs of everything, counted from 1, a head was found once more, and after which it was better."""

    found: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)


@pytest.fixture
def refitted(monkeypatch: pytest.MonkeyPatch) -> Refitted:
    """From here on."""
    seen = Refitted()

    def noted(rig: Rig, state: RunState) -> Counts | None:
        before = rig.model.get_parameter("fc.weight").detach().clone()
        counts = real(rig, state)
        if counts is not None:
            seen.found.append(state.epoch + 1)
        if not torch.equal(before, rig.model.get_parameter("fc.weight")):
            seen.taken.append(state.epoch + 1)
        return counts

    real = stage.refit
    monkeypatch.setattr(stage, "refit", noted)
    return seen


def accuracies(trained: Trained) -> list[float]:
    """Of the validation data, after each epoch of everything."""
    return [one.validation[Metric.ACCURACY] for one in trained.state.history if one.stage == 2]


def first_loss(trained: Trained) -> float:
    """Of the validation data, after the first epoch of everything."""
    return next(one.validation[Metric.LOSS] for one in trained.state.history if one.stage == 2)


def training_losses(trained: Trained) -> list[float]:
    return [one.train_loss for one in trained.state.history]


@pytest.mark.parametrize(("epochs", "after"), [(2, []), (3, [1]), (5, [1, 2])])
def test_the_head_is_found_once_more_after_each_epoch_whose_rate_is_high(
    pretrained: Pretrained, tmp_path: Path, refitted: Refitted, epochs: int, after: list[int]
) -> None:
    run(pretrained(output=tmp_path / "models", unfreezing=then_everything(epochs)))
    assert refitted.found == after


@pytest.mark.parametrize(
    "optimization",
    [
        pytest.param({"schedule": Schedule.CONSTANT}, id="a rate that never comes down"),
        pytest.param({"head_start": HeadStart.EPOCHS}, id="a first head of ordinary epochs"),
    ],
)
def test_elsewhere_the_head_stays_as_it_was_trained(
    pretrained: Pretrained, tmp_path: Path, refitted: Refitted, optimization: dict[str, Any]
) -> None:
    config = pretrained(output=tmp_path / "models", unfreezing=then_everything(3))
    run(with_optimization(config, **optimization))
    assert refitted.found == []


def test_a_head_that_does_better_as_it_was_trained_stays(
    pretrained: Pretrained, faint: Path, tmp_path: Path, refitted: Refitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is reported is what it reaches: as where nothing is found once more."""

    def without_success(*arguments: Any) -> HeadSolver:
        solver = solver_of(*arguments)
        monkeypatch.setattr(solver, "solve", lambda _: 0.0)
        return solver

    solver_of = renewal.solver_of
    monkeypatch.setattr(renewal, "solver_of", without_success)
    kept = run(pretrained(faint, output=tmp_path / "kept", unfreezing=then_everything(3)))
    assert (refitted.found, refitted.taken) == ([1], [])
    monkeypatch.setattr(stage, "refit", lambda *_: None)
    left = run(pretrained(faint, output=tmp_path / "left", unfreezing=then_everything(3)))
    assert [epoch.validation for epoch in kept.state.history] == [epoch.validation for epoch in left.state.history]


def test_all_heads_are_looked_at_in_one_pass(
    pretrained: Pretrained, tmp_path: Path, refitted: Refitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def noted(*arguments: Any, **options: Any) -> tuple[Counts, ...]:
        passes.append(len(arguments[1]))
        return compare(*arguments, **options)

    compare = rig_module.compare
    monkeypatch.setattr(rig_module, "compare", noted)
    monkeypatch.setattr(evaluate, "compare", noted)
    trained = run(pretrained(output=tmp_path / "models", unfreezing=then_everything(3)))
    epochs = passes[: len(trained.state.history)]
    assert refitted.found == [1]
    assert epochs[-3:] == [1 + len(SURER), 1, 1]


def test_without_an_average_the_head_stays_since_training_would_go_on_from_the_other(
    pretrained: Pretrained, tmp_path: Path, refitted: Refitted
) -> None:
    config = pretrained(output=tmp_path / "models", unfreezing=then_everything(3))
    regularization = config.optimization.regularization.model_copy(update={"ema": 0.0})
    run(with_optimization(config, regularization=regularization))
    assert refitted.found == []


def test_it_shows_what_was_learned_and_changes_nothing_of_what_is_trained(
    pretrained: Pretrained, faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same losses in training, bit for bit, and a better first epoch."""
    refit = run(pretrained(faint, output=tmp_path / "refit", unfreezing=then_everything(3)))
    monkeypatch.setattr(stage, "refit", lambda *_: None)
    left = run(pretrained(faint, output=tmp_path / "left", unfreezing=then_everything(3)))
    assert training_losses(refit) == training_losses(left)
    assert accuracies(refit)[0] > accuracies(left)[0]


def test_it_is_made_as_sure_of_itself_as_the_validation_data_bear_out(
    pretrained: Pretrained, faint: Path, tmp_path: Path, refitted: Refitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers stay the same, to the last image, and the validation loss is lower."""
    surer = run(pretrained(faint, output=tmp_path / "surer", unfreezing=then_everything(3)))
    monkeypatch.setattr(calibration, "SURER", (1.0,))
    unsure = run(pretrained(faint, output=tmp_path / "unsure", unfreezing=then_everything(3)))
    assert refitted.taken == [1, 1]
    assert accuracies(surer)[0] == accuracies(unsure)[0]
    assert first_loss(surer) < first_loss(unsure)


@pytest.mark.parametrize(
    ("classes", "features", "images"), [(5, 512, 512), (5, 2048, 2048), (10, 512, 1000), (1000, 2048, 100_000)]
)
def test_as_many_images_as_features_and_some_of_each_class(classes: int, features: int, images: int) -> None:
    assert images_to_refit(classes, features) == images


def test_it_is_found_on_no_more_images_than_that(
    pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "images_to_refit", lambda *_: 30)
    seen: list[int] = []

    def noted(rig: Rig, loader: Any, most: int) -> SomeImages:
        some = some_of(rig, loader, most)
        seen.append(len(some.ids))
        return some

    some_of = renewal.some_of
    monkeypatch.setattr(renewal, "some_of", noted)
    run(pretrained(output=tmp_path / "models", unfreezing=then_everything(3)))
    assert seen[-1] == 30


def test_a_run_that_is_cut_off_after_it_ends_as_if_it_had_not_been(
    pretrained: Pretrained, faint: Path, tmp_path: Path, refitted: Refitted
) -> None:
    whole = pretrained(faint, output=tmp_path / "whole", unfreezing=then_everything(5))
    broken = pretrained(faint, output=tmp_path / "broken", unfreezing=then_everything(5))

    def cut(progress: Progress) -> None:
        if progress.checkpoint is not None and (progress.checkpoint.stage, progress.checkpoint.epoch) == (2, 1):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(broken, cut)
    assert refitted.taken
    assert weights(broken, run(broken)) == weights(whole, run(whole))


def test_two_workers_have_the_same_head(pretrained: Pretrained, faint: Path, tmp_path: Path) -> None:
    """They compare their weights when a stage has ended, and a run whose workers differ fails."""
    config = pretrained(faint, output=tmp_path / "models", unfreezing=then_everything(3))
    mp.spawn(train, (2, config.model_dump_json(by_alias=True), CachePlace.MEMORY, str(tmp_path)), nprocs=2)
    one, other = ((tmp_path / f"trained-{rank}.json").read_text() for rank in range(2))
    assert accuracies(Trained.model_validate_json(one)) == accuracies(Trained.model_validate_json(other))
