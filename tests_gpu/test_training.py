"""Whole runs of one worker on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from snowmelt_trainer.backbones import load_model
from snowmelt_trainer.contract import Reason, RunConfig
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.failures import sendable_errors
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.publish import publish
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.driver.worker import fine_tune, set_up
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training import stage
from snowmelt_trainer.training.activations import resources
from snowmelt_trainer.training.compiling import Compilable
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.stage import StageTraining
from snowmelt_trainer.training.state import RunState

Configure = Callable[..., RunConfig]
LAST_BLOCK = {
    "strategy": "Custom",
    "stages": [{"unfreeze": ["layer4", "head"]}],
    "stage": {"maxEpochs": 3, "patience": 9},
}
RESNET = {"architecture": "resnet18", "weights": "None"}


def run(config: RunConfig, world: World, send: Callable[[Progress], None] = lambda _: None) -> Trained:
    data = open_data(config.data, seed=config.optimization.seed, volumes_root=config.volumes_root)
    return fine_tune(config, data, world, send)


def epoch_losses(trained: Trained) -> list[float]:
    return [epoch.train_loss for epoch in trained.state.history]


@pytest.mark.usefixtures("exact")
def test_the_first_steps_on_a_gpu_are_those_on_a_processor(
    configure: Configure, tmp_path: Path, gpu: World, losses: list[float]
) -> None:
    found = []
    for world in (World(), gpu):
        sections: dict[str, Any] = {"backbone": RESNET, "unfreezing": LAST_BLOCK}
        run(configure(output=tmp_path / world.device.type, **sections), world)
        found.append(losses[:8])
        losses.clear()
    assert found[1] == pytest.approx(found[0], rel=2e-3)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("place", ["gpu", "host", "files"])
def test_a_cache_changes_no_loss_wherever_it_lies(
    configure: Configure, tmp_path: Path, gpu: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv(resources.DIRECTORY_ENV, str(tmp_path / "cache"))
    if place != "gpu":
        monkeypatch.setattr(resources, "DEVICE_SHARE", 0.0)
    if place == "files":
        monkeypatch.setattr(resources, "free_memory", lambda: 0)
    found = []
    for mode in ("Never", "Always"):
        config = configure(
            output=tmp_path / mode,
            backbone=RESNET,
            data={"augmentation": "None"},
            unfreezing=LAST_BLOCK,
            optimization={"cache": {"mode": mode}},
        )
        trained = run(config, gpu)
        found.append(epoch_losses(trained))
    (row,) = trained.state.rows
    assert row.cache is not None
    assert row.cache.place == ("File" if place == "files" else "Memory")
    assert row.cache.saved_seconds is not None
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_long_stage_trains_compiled_with_the_losses_of_one_that_does_not(
    configure: Configure, tmp_path: Path, gpu: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unfreezing = {"strategy": "Full", "stage": {"maxEpochs": 3, "patience": 9}}
    sections: dict[str, Any] = {"backbone": RESNET, "unfreezing": unfreezing}
    plain = run(configure(output=tmp_path / "plain", **sections), gpu)
    monkeypatch.setattr(stage, "Compilable", partial(Compilable, worth=lambda *_: True))
    with caplog.at_level("INFO"):
        compiled = run(configure(output=tmp_path / "compiled", **sections), gpu)
    assert "a step compiled" in caplog.text
    assert compiled.state.history[-1].epoch == 3
    assert epoch_losses(compiled) == pytest.approx(epoch_losses(plain), rel=0.02)


def test_a_gpu_that_can_trains_in_bfloat16_and_the_model_loads_on_a_processor(configure: Configure, gpu: World) -> None:
    config = configure(optimization={"precision": "Auto", "headStart": "Solver"}, backbone=RESNET)
    trained = run(config, gpu)
    native = torch.cuda.get_device_capability(gpu.device) >= (8, 0)
    assert trained.precision is (Precision.BFLOAT16 if native else Precision.FLOAT32)
    assert trained.state.rows[0].cache is not None
    publish(config, trained)
    model, _, _ = load_model(Layout.of(config).root)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_been(
    configure: Configure, tmp_path: Path, gpu: World
) -> None:
    sections: dict[str, Any] = {"backbone": RESNET, "unfreezing": LAST_BLOCK}
    whole = run(configure(output=tmp_path / "whole", **sections), gpu)

    class PowerCutError(Exception):
        pass

    def cut(progress: Progress) -> None:
        if progress.checkpoint is not None:  # epochs are shorter than writing one down, so which it is of varies
            raise PowerCutError

    broken = configure(output=tmp_path / "broken", **sections)
    with pytest.raises(PowerCutError):
        run(broken, gpu, cut)
    resumed = run(broken, gpu)
    assert [epoch.epoch for epoch in resumed.state.history] == [1, 2, 3]
    assert epoch_losses(resumed) == pytest.approx(epoch_losses(whole), rel=0.02)


def test_a_full_gpu_is_named_with_what_helps(configure: Configure, gpu: World) -> None:
    config = configure(backbone=RESNET, data={"imageSize": 512}, optimization={"batchSize": 180})
    torch.cuda.set_per_process_memory_fraction(0.01)
    with (
        pytest.raises(RunError, match=r"accelerator.*lower spec\.optimization\.batchSize") as caught,
        sendable_errors(),
    ):
        run(config, gpu)
    assert caught.value.reason is Reason.GPU_OUT_OF_MEMORY


def peak(config: RunConfig, world: World) -> int:
    """Most bytes that torch held on the GPU in two epochs of the run's first stage, after they began."""
    data = open_data(config.data, seed=0, volumes_root=config.volumes_root)
    _, rig = set_up(config, data, world, lambda _: None)
    training = StageTraining(rig, RunState(fingerprint=rig.fingerprint), b"")
    torch.cuda.reset_peak_memory_stats()
    training.epoch()
    training.epoch()
    training.keeper.settle()
    return torch.cuda.max_memory_allocated()


def test_no_stage_takes_more_of_the_gpu_than_full_fine_tuning(configure: Configure, tmp_path: Path, gpu: World) -> None:
    def stages() -> Iterator[list[str]]:
        yield from (["*"], ["layer4", "head"], ["layer3", "layer4", "head"], ["head"])

    taken = []
    for number, unfreeze in enumerate(stages()):
        unfreezing = {
            "strategy": "Custom",
            "stages": [{"unfreeze": unfreeze}],
            "stage": {"maxEpochs": 5, "patience": 9},
        }
        config = configure(
            output=tmp_path / str(number), backbone=RESNET, data={"imageSize": 96}, unfreezing=unfreezing
        )
        taken.append(peak(config, gpu))
    assert max(taken[1:]) <= taken[0]
