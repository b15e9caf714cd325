"""Whole runs with a cache of activations: what they train is what they would have trained without."""

from __future__ import annotations

import hashlib
import os
import subprocess
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from snowmelt_trainer.backbones import Cut, LayerGroup
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import CachePlace, CacheStatus, Progress
from snowmelt_trainer.data.loading import Batch, Keys, TrainingLoader
from snowmelt_trainer.data.transforms import Draw
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training import stage as stage_module
from snowmelt_trainer.training import walk
from snowmelt_trainer.training.activations import resources
from snowmelt_trainer.training.keeping import Keeper
from snowmelt_trainer.training.rig import Rig
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import RunState
from tests.trainer.training.runs import PowerCutError, rig_for, run

Configure = Callable[..., RunConfig]
NEVER, ALWAYS = {"mode": "Never"}, {"mode": "Always"}
FLOAT32 = {"batchSize": 45, "precision": "Float32"}


def caches(trained: Trained) -> list[CacheStatus | None]:
    return [row.cache for row in trained.state.rows]


@pytest.fixture
def only_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No memory is free, so what is kept goes to files below the returned folder."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path / "cache"))
    monkeypatch.setattr(resources, "free_memory", lambda: 0)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("architecture", "unfreeze"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v3_small", "classifier"),
        ("shufflenet_v2_x0_5", "stage4"),
        ("densenet121", "denseblock4"),
        ("efficientnet_b0", "features.8"),
        ("squeezenet1_1", "head"),
    ],
)
def test_fifty_steps_with_a_cache_have_the_losses_of_fifty_without(
    configure: Configure, tmp_path: Path, losses: list[float], architecture: str, unfreeze: str
) -> None:
    found = []
    for cache in (NEVER, ALWAYS):
        config = configure(
            output=tmp_path / cache["mode"],
            backbone={"architecture": architecture, "weights": "None"},
            data={"augmentation": "None"},
            unfreezing={
                "strategy": "Custom",
                "stages": [{"unfreeze": [unfreeze]}],
                "stage": {"maxEpochs": 5, "patience": 9},
            },
            optimization={"batchSize": 18, "precision": "Float32", "cache": cache},
        )
        losses.clear()
        trained = run(config)
        found.append((list(losses), [epoch.validation["loss"] for epoch in trained.state.history]))
    (without, validated_without), (kept, validated) = found
    assert len(without) == 50
    assert kept == pytest.approx(without, abs=1e-5)
    assert validated == pytest.approx(validated_without, abs=1e-4)
    (cache_row,) = caches(trained)
    assert cache_row is not None
    assert cache_row.views == 1
    assert cache_row.bytes > 0


def test_the_first_epochs_see_the_variations_that_they_would_have_seen_without(
    configure: Configure, tmp_path: Path
) -> None:
    histories = []
    for cache in (NEVER, ALWAYS | {"views": 2}):
        config = configure(
            output=tmp_path / cache["mode"],
            data={"augmentation": "Standard"},
            unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 4, "patience": 9}},
            optimization=FLOAT32 | {"learningRate": 1.0, "cache": cache},
        )
        histories.append([epoch.train_loss for epoch in run(config).state.history])
    without, kept = histories
    assert kept[:2] == pytest.approx(without[:2], abs=1e-6)
    assert kept[2:] != pytest.approx(without[2:], abs=1e-6)


STEPWISE = FLOAT32 | {"checkpointEverySteps": 3, "cache": ALWAYS | {"views": 2}}


def outcome(config: RunConfig, trained: Trained) -> tuple[Any, ...]:
    directory = Layout.of(config).checkpoints
    newest = max(path for path in directory.iterdir() if not path.name.startswith("."))
    written = [*sorted(newest.glob("*.safetensors")), newest / "optimizer.pt"]
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in written]
    history = [epoch.model_dump(exclude={"seconds", "samples_per_second"}) for epoch in trained.state.history]
    return history, trained.validation, trained.test, newest.name, files


def cut_after(number: int) -> Callable[[Progress], None]:
    seen: set[tuple[int, int, int]] = set()

    def send(progress: Progress) -> None:
        if progress.checkpoint is not None:
            seen.add((progress.checkpoint.stage, progress.checkpoint.epoch, progress.checkpoint.step))
        if len(seen) >= number:
            raise PowerCutError

    return send


@pytest.mark.parametrize("place", list(CachePlace))
def test_a_run_cut_off_anywhere_ends_bit_for_bit_like_an_uninterrupted_one(
    configure: Configure, tmp_path: Path, request: pytest.FixtureRequest, place: CachePlace
) -> None:
    if place is CachePlace.FILE:
        request.getfixturevalue("only_files")
    stages = {"strategy": "Gradual", "maxStages": 3, "stage": {"maxEpochs": 3, "patience": 9}}
    whole = configure(output=tmp_path / "whole", uid="whole", unfreezing=stages, optimization=STEPWISE)
    uninterrupted = run(whole)
    assert [cache and (cache.views, cache.place) for cache in caches(uninterrupted)] == [(2, place), (2, place), None]
    for number in (1, 4, 8):
        config = configure(output=tmp_path / f"cut-{number}", uid="cut", unfreezing=stages, optimization=STEPWISE)
        with pytest.raises(PowerCutError):
            run(config, cut_after(number))
        assert outcome(config, run(config)) == outcome(whole, uninterrupted)


@pytest.fixture
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training waits for each checkpoint, so that a test that cuts a run off after one knows where that is."""
    keep = Keeper.keep

    def settled(self: Keeper, state: RunState, *, passable: bool = False) -> None:
        keep(self, state, passable=passable)
        self.settle()

    monkeypatch.setattr(Keeper, "keep", settled)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int | Draw]:
    """The training images that were asked for, in order."""
    asked: list[int | Draw] = []
    load = TrainingLoader.load

    def noting(self: TrainingLoader, batches: Sequence[Keys]) -> Iterator[Batch]:
        asked.extend(key for keys in batches for key in keys)
        return load(self, batches)

    monkeypatch.setattr(TrainingLoader, "load", noting)
    return asked


@pytest.mark.usefixtures("told_at_once")
def test_another_attempt_on_the_same_node_computes_only_what_is_missing(
    configure: Configure, only_files: Path, loaded: list[int | Draw]
) -> None:
    config = configure(
        data={"augmentation": "None"},
        unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 3, "patience": 9}},
        optimization=FLOAT32 | {"checkpointEverySteps": 3, "cache": ALWAYS},
    )
    with pytest.raises(PowerCutError):
        run(config, cut_after(1))
    assert len(list(only_files.rglob("*.rows"))) == 1
    loaded.clear()
    run(config)
    assert len(loaded) < 2 * 32 + 2 * 4 + 1  # the measurement and the spot checks, and no pass over the images
    assert list(only_files.rglob("*.rows")) == []


def test_a_prefix_that_changes_under_the_cache_is_found_out(configure: Configure) -> None:
    config = configure(
        data={"augmentation": "None"},
        unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 2, "patience": 9}},
        optimization=FLOAT32 | {"cache": ALWAYS},
    )
    sent: list[Progress] = []
    rig = rig_for(config, sent.append)
    training = StageTraining(rig, RunState(fingerprint=rig.fingerprint), b"")
    training._train_epoch()
    with torch.no_grad():
        rig.model.get_parameter("conv1.0.weight").mul_(1.01)
    training._finish_epoch()
    training.run()
    assert any("differ from their recomputation" in warning for warning in sent[-1].warnings)


def test_what_a_transformer_computes_in_bfloat16_is_kept_though_its_last_norm_gives_float32(
    configure: Configure,
) -> None:
    config = configure(
        backbone={"architecture": "vit_b_16", "weights": "None"},
        data={"augmentation": "None"},
        unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 1}},
        optimization={"precision": "BFloat16", "cache": ALWAYS},
    )
    (cache,) = caches(run(config))
    assert cache is not None
    assert (cache.failed, cache.views) == (False, 1)


def test_a_cache_that_differs_when_it_is_built_is_built_anew_and_then_given_up(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix whose output depends on chance can never be kept."""
    config = configure(
        data={"augmentation": "None"},
        unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 2, "patience": 9}},
        optimization=FLOAT32 | {"cache": ALWAYS},
    )
    sent: list[Progress] = []
    rig = rig_for(config, sent.append)
    rig.model.get_submodule("conv5").register_forward_hook(lambda _m, _i, output: output + torch.randn_like(output))
    state = StageTraining(rig, RunState(fingerprint=rig.fingerprint), b"").run()
    assert state.epoch == 2
    assert state.cache is not None
    assert "given up" in state.cache.reason
    assert any("built anew" in warning for warning in sent[-1].warnings)


def test_the_next_stages_rows_are_computed_from_this_ones(
    configure: Configure, tmp_path: Path, losses: list[float], loaded: list[int | Draw]
) -> None:
    stages = [{"unfreeze": ["stage4", "conv5"], "maxEpochs": 2}, {"unfreeze": ["conv5"]}, {"unfreeze": ["conv5"]}]
    found, images = [], []
    for cache in (NEVER, ALWAYS):
        config = configure(
            output=tmp_path / cache["mode"],
            data={"augmentation": "None", "test": None},
            unfreezing={"strategy": "Custom", "stages": stages, "stage": {"maxEpochs": 2, "patience": 9}},
            optimization=FLOAT32 | {"cache": cache},
        )
        losses.clear()
        loaded.clear()
        trained = run(config)
        found.append(list(losses))
        images.append(len(loaded))
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert images[0] == 6 * 180
    assert images[1] == 180 + 3 * (2 * 32 + 2 * 4)  # one pass; then the measurements and the spot checks
    assert [cache is not None and cache.bytes > 0 for cache in caches(trained)] == [True] * 3


def test_max_bytes_bounds_the_cache(configure: Configure) -> None:
    unfreezing = {"strategy": "HeadOnly", "stage": {"maxEpochs": 6, "patience": 9}}
    enough, too_few = 2 * 180 * 4096 + 60 * 4096, 2 * 180 * 4096

    def bounded(most: int) -> dict[str, Any]:
        return {"cache": ALWAYS | {"maxBytes": most}}

    (kept,) = caches(run(configure(uid="a", unfreezing=unfreezing, optimization=bounded(enough))))
    assert kept is not None
    assert (kept.views, kept.bytes) == (2, enough)
    (none,) = caches(run(configure(uid="b", unfreezing=unfreezing, optimization=bounded(too_few))))
    assert none is not None
    assert (none.views, none.bytes, none.place) == (0, 0, None)
    assert "do not fit" in none.reason


def test_nothing_is_kept_where_everything_is_trained_or_the_cache_is_off(configure: Configure) -> None:
    stage = {"stage": {"maxEpochs": 1}}
    assert caches(run(configure(uid="full", unfreezing={"strategy": "Full"} | stage))) == [None]
    off = configure(uid="off", unfreezing={"strategy": "HeadOnly"} | stage, optimization={"cache": NEVER})
    assert caches(run(off)) == [None]
    once = configure(uid="once", unfreezing={"strategy": "HeadOnly"} | stage, optimization={"cache": {"views": 1}})
    (decided,) = caches(run(once))
    assert decided is not None
    assert "it would not pay over 1 epochs" in decided.reason


def test_a_network_that_cannot_be_cut_says_so_in_status(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def uncut(model: torch.nn.Module, groups: tuple[LayerGroup, ...], first_trainable: int) -> Cut:
        return Cut(prefix=None, suffix=model, reason="head and what precedes it share more than one tensor")

    monkeypatch.setattr(stage_module, "split_at", uncut)
    sent: list[Progress] = []
    trained = run(configure(unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 1}}), sent.append)
    assert "head and what precedes it share more than one tensor" in sent[-1].warnings[0]
    (cache,) = caches(trained)
    assert cache is not None
    assert cache.reason.startswith("not built: the network cannot be cut")


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real file system of 512 KiB that claims to have room."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(place))
    monkeypatch.setattr(resources, "free_memory", lambda: 0)
    monkeypatch.setattr(resources, "free_disk", lambda _: 10**9)
    monkeypatch.setattr(resources, "PROBE_BYTES", 2**16)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_the_cache_and_not_the_job(configure: Configure, full_disk: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "data": {"augmentation": "None"},
        "unfreezing": {"strategy": "HeadOnly", "stage": {"maxEpochs": 3, "patience": 9}},
    }
    sent: list[Progress] = []
    kept = run(configure(output=tmp_path / "on", optimization=FLOAT32 | {"cache": ALWAYS}, **sections), sent.append)
    (cache,) = caches(kept)
    assert cache is not None
    assert cache.place is CachePlace.FILE
    assert "No space left on device" in cache.reason
    assert cache.failed
    assert [one.stage.cache for one in sent if one.stage][-1] == cache
    assert any("the cache was given up" in warning for warning in sent[-1].warnings)
    without = run(configure(output=tmp_path / "off", optimization=FLOAT32 | {"cache": NEVER}, **sections))
    losses, expected = ([epoch.train_loss for epoch in one.state.history] for one in (kept, without))
    assert losses == pytest.approx(expected, abs=1e-6)
    assert list(full_disk.rglob("*.rows")) == []


def test_a_cached_stages_optimizer_is_gone_before_the_best_weights_are_read(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its cache lives on."""
    trained: list[weakref.ref[StageTraining]] = []
    alive: list[int] = []
    run_stage, restore = StageTraining.run, walk._restore_best

    def noted(stage: StageTraining) -> RunState:
        trained.append(weakref.ref(stage))
        return run_stage(stage)

    def looked(rig: Rig, state: RunState) -> None:
        alive.append(sum(one() is not None for one in trained))
        restore(rig, state)

    monkeypatch.setattr(StageTraining, "run", noted)
    monkeypatch.setattr(walk, "_restore_best", looked)
    two = {"strategy": "Custom", "stages": [{"unfreeze": ["head"]}, {"unfreeze": ["head", "conv5"]}]}
    run(configure(unfreezing=two | {"stage": {"maxEpochs": 1}}, optimization=FLOAT32 | {"cache": ALWAYS}))
    assert alive == [0, 0]
