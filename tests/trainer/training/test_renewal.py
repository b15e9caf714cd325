"""Before everything is trained, BatchNorm's statistics are counted anew, and a solved head is solved for them; and
it is softened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.optimization import HeadStart
from snowmelt_trainer.contract.progress import CachePlace, Progress
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training import head_start, renewal, statistics, walk
from snowmelt_trainer.training.calibration import SURER
from snowmelt_trainer.training.features import SomeImages
from snowmelt_trainer.training.head_start import HeadSolver, scaled
from snowmelt_trainer.training.renewal import SOFTENED
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.state import RunState
from tests.trainer.training.runs import PowerCutError, data_of, run, weights, with_optimization
from tests.trainer.training.test_cached_workers import train

THEN_EVERYTHING: dict[str, Any] = {"strategy": "Gradual", "maxStages": 2, "stage": {"maxEpochs": 2}}
EVERYTHING = {"unfreeze": ["*"]}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done from here on, in its order."""
    seen: list[str] = []

    def note(place: ModuleType | type, name: str) -> None:
        real = getattr(place, name)

        def noted(*arguments: Any) -> Any:
            seen.append(name)
            return real(*arguments)

        monkeypatch.setattr(place, name, noted)

    note(statistics, "_count")
    note(HeadSolver, "solve_plainly")
    return seen


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The head's weights before and after each `renew` from here on."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = walk.renew

    def noted(rig: Rig, state: RunState) -> RunState:
        before = rig.model.get_parameter("fc.weight").detach().clone()
        renewed = real(rig, state)
        seen.append((before, rig.model.get_parameter("fc.weight").detach().clone()))
        return renewed

    monkeypatch.setattr(walk, "renew", noted)
    return seen


def train_noted(rank: int, size: int, config_json: str, folder: str) -> None:
    """As `train`, in a process of its own; the loss of each head that is solved lies in `folder`/losses-RANK."""
    found: list[float] = []
    minimise = HeadSolver._minimise

    def noted(solver: HeadSolver, *arguments: Any) -> float:
        found.append(minimise(solver, *arguments))
        return found[-1]

    HeadSolver._minimise = noted  # type: ignore[method-assign]
    train(rank, size, config_json, CachePlace.MEMORY, folder)
    Path(folder, f"losses-{rank}").write_text(json.dumps(found))


def test_everything_begins_with_a_head_that_fits_its_features(
    pretrained: Callable[..., RunConfig],
    faint: Path,
    tmp_path: Path,
    losses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The solver makes no step of an optimizer: the first loss is that of everything."""
    run(pretrained(faint, output=tmp_path / "renewed", norms="Pretrained", unfreezing=THEN_EVERYTHING))
    first = losses[0]
    losses.clear()
    monkeypatch.setattr(walk, "renew", lambda _, state: state)
    run(pretrained(faint, output=tmp_path / "as-it-was", norms="Pretrained", unfreezing=THEN_EVERYTHING))
    assert first < losses[0]


def test_the_head_for_everything_fits_better_than_one_that_knows_nothing(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However wrong the old one is for the new features: with it to begin with, the loss of an image stayed at 17."""
    losses: list[float] = []

    class Noted(HeadSolver):
        def solve_plainly(self, epoch: int) -> float:
            losses.append(super().solve_plainly(epoch) / self.samples)
            return losses[-1]

    monkeypatch.setattr(head_start, "HeadSolver", Noted)
    run(pretrained(faint, output=tmp_path / "models", norms="Pretrained", unfreezing=THEN_EVERYTHING))
    assert len(losses) == 1
    assert losses[0] < math.log(10)


@pytest.mark.parametrize(
    ("unfreezing", "done"),
    [
        ({"strategy": "HeadOnly"}, []),
        ({"strategy": "Full"}, []),
        ({"strategy": "Gradual", "maxStages": 3}, ["_count", "solve_plainly"]),
        (
            {"strategy": "Custom", "stages": [{"unfreeze": ["head"]}, EVERYTHING, EVERYTHING]},
            ["_count", "solve_plainly"],
        ),
    ],
)
def test_only_the_first_stage_that_adapts_after_one_that_did_not_begins_anew(
    pretrained: Callable[..., RunConfig], tmp_path: Path, counts: list[str], unfreezing: dict[str, Any], done: list[str]
) -> None:
    run(pretrained(output=tmp_path / "models", unfreezing={"stage": {"maxEpochs": 1}} | unfreezing))
    assert counts == done


def test_a_network_from_scratch_has_counted_nothing_else(
    configure: Callable[..., RunConfig], counts: list[str]
) -> None:
    run(configure(optimization={"headStart": "Auto"}))
    assert counts == []


def test_a_head_of_ordinary_epochs_stays_as_it_is(
    pretrained: Callable[..., RunConfig], tmp_path: Path, heads: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    config = pretrained(output=tmp_path / "models", unfreezing=THEN_EVERYTHING)
    run(with_optimization(config, head_start=HeadStart.EPOCHS))
    before, after = heads[1]
    assert torch.equal(before, after)


@pytest.mark.parametrize("factor", [SOFTENED, *SURER])
def test_a_scaled_head_gives_the_same_answers_and_is_less_or_more_sure(factor: float) -> None:
    head, features = torch.nn.Linear(8, 5), torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    other = scaled(head, factor)
    assert torch.equal(other(features).argmax(1), head(features).argmax(1))
    assert torch.allclose(other(features), factor * head(features), atol=1e-6)


def test_a_stage_in_between_goes_on_with_the_head_as_it_is(
    pretrained: Callable[..., RunConfig], tmp_path: Path, heads: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    between = {"strategy": "Custom", "stages": [{"unfreeze": ["head"]}, {"unfreeze": ["head", "conv5"]}]}
    run(pretrained(output=tmp_path / "models", unfreezing=between | {"stage": {"maxEpochs": 1}}))
    assert len(heads) == 2
    assert all(torch.equal(before, after) for before, after in heads)


def test_everything_begins_with_a_soft_head(
    pretrained: Callable[..., RunConfig],
    tmp_path: Path,
    faint: Path,
    heads: list[tuple[torch.Tensor, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was solved again."""
    sure: list[torch.Tensor] = []

    def noted(head: torch.nn.Linear, factor: float) -> torch.nn.Linear:
        sure.append(head.weight.detach().clone())
        return scaled(head, factor)

    monkeypatch.setattr(renewal, "scaled", noted)
    run(pretrained(faint, output=tmp_path / "models", norms="Pretrained", unfreezing=THEN_EVERYTHING))
    _, (old, new) = heads
    assert torch.allclose(new, SOFTENED * sure[0])
    assert not torch.equal(sure[0], old)


@pytest.mark.usefixtures("helps")
def test_a_head_that_has_just_been_found_is_found_plainly_where_the_statistics_stay(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, counts: list[str]
) -> None:
    """They were counted anew before it, on the same images. A whitened head loses more while its features change."""
    unreached = {"target": {"atLeast": 1.0}}
    run(pretrained(faint, output=tmp_path / "models", unfreezing=THEN_EVERYTHING | unreached))
    assert counts == ["_count", "_count", "solve_plainly"]


@pytest.mark.usefixtures("helps")
def test_a_head_that_was_trained_since_stays_where_the_statistics_do(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, counts: list[str]
) -> None:
    """At a rate that moves no weight: what lies behind layers that have changed is counted to something else."""
    second = {"unfreeze": ["head", "conv5"], "learningRate": 1e-30}
    custom = {
        "strategy": "Custom",
        "stages": [{"unfreeze": ["head"]}, second, EVERYTHING],
        "stage": {"maxEpochs": 1},
        "target": {"atLeast": 1.0},
    }
    run(pretrained(faint, output=tmp_path / "models", unfreezing=custom))
    assert counts == ["_count", "_count"]


def test_a_head_is_found_plainly_where_a_network_counts_nothing(
    pretrained: Callable[..., RunConfig], tmp_path: Path, counts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_statistics", lambda _: {})
    run(pretrained(output=tmp_path / "models", unfreezing=THEN_EVERYTHING))
    assert counts == ["solve_plainly"]


@pytest.mark.parametrize(("of_a_class", "images"), [(3, 30), (1000, 1000)])
def test_the_head_is_found_again_on_some_images_of_each_class(
    pretrained: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_a_class: int,
    images: int,
) -> None:
    """Or on all, where there are fewer; those that the statistics were counted on go through the network once."""
    monkeypatch.setattr(renewal, "IMAGES", 5)
    monkeypatch.setattr(renewal, "IMAGES_OF_A_CLASS", of_a_class)
    seen: list[int] = []

    def noted(some: SomeImages) -> Iterator[Batch]:
        for batch in batches_of(some):
            seen.extend(batch[2].tolist())
            yield batch

    batches_of = SomeImages.batches
    monkeypatch.setattr(SomeImages, "batches", noted)
    config = pretrained(output=tmp_path / "models", norms="Pretrained", unfreezing=THEN_EVERYTHING)
    run(config)
    every = len(data_of(config).train)
    assert len(set(seen)) == len(seen) == min(images, every)


def test_the_head_is_found_on_features_that_are_normalised_as_training_will(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the batch: over the images of one, each channel of what a BatchNorm gives has the mean that it was taught."""
    batches: list[tuple[bool, int]] = []

    def noted(rig: Rig, images: SomeImages) -> list[Batch]:
        norm = next(one for one in rig.model.modules() if isinstance(one, torch.nn.BatchNorm2d))
        hook = norm.register_forward_hook(
            lambda norm, _, given: batches.append(
                (torch.allclose(given.mean((0, 2, 3)), norm.bias, atol=1e-3), len(given))
            )
        )
        counted = count(rig, images)
        hook.remove()
        assert sum(len(features) for features, _, _ in counted) == len(images.ids)
        return counted

    count = statistics._count
    monkeypatch.setattr(statistics, "_count", noted)
    run(pretrained(faint, output=tmp_path / "models", norms="Pretrained", unfreezing=THEN_EVERYTHING))
    assert batches
    assert all(fits for fits, _ in batches)
    sizes = [size for _, size in batches]
    assert max(sizes) - min(sizes) <= 1  # a last batch of a few images would be normalised by those few


def test_a_run_that_is_cut_off_as_everything_begins_ends_as_if_it_had_not_been(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path
) -> None:
    whole = pretrained(faint, output=tmp_path / "whole", norms="Pretrained", unfreezing=THEN_EVERYTHING)
    broken = pretrained(faint, output=tmp_path / "broken", norms="Pretrained", unfreezing=THEN_EVERYTHING)

    def cut(progress: Progress) -> None:
        if progress.stage is not None and progress.stage.index == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(broken, cut)
    assert weights(broken, run(broken)) == weights(whole, run(whole))


def test_two_workers_find_the_heads_that_one_finds(
    pretrained: Callable[..., RunConfig], faint: Path, tmp_path: Path
) -> None:
    """Each solves on its share of the images: one that were missed, or counted twice, would change the sum."""
    losses = []
    for size in (1, 2):
        folder = tmp_path / f"{size}-workers"
        folder.mkdir()
        config = pretrained(faint, output=folder / "models", norms="Pretrained", unfreezing=THEN_EVERYTHING)
        mp.spawn(train_noted, (size, config.model_dump_json(by_alias=True), str(folder)), nprocs=size)
        losses += [json.loads((folder / f"losses-{rank}").read_text()) for rank in range(size)]
    one, two, other = losses
    assert len(one) == THEN_EVERYTHING["stage"]["maxEpochs"] + 1
    assert two == other == pytest.approx(one, rel=1e-3)
