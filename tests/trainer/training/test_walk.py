"""Whole runs of one worker, in this process: what is trained, when it stops, and that a resume loses nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from snowmelt_trainer.backbones import build_backbone
from snowmelt_trainer.contract import Reason, RunConfig
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.state import Epoch
from tests.trainer.training.runs import PowerCutError, run

Configure = Callable[..., RunConfig]


def checkpoints(config: RunConfig) -> list[Path]:
    return sorted(path for path in Layout.of(config).checkpoints.iterdir() if not path.name.startswith("."))


def weights(config: RunConfig, checkpoint: str) -> dict[str, torch.Tensor]:
    found = CheckpointStore(Layout.of(config).checkpoints).read(checkpoint)
    assert found is not None
    return load(found.model)


def without_times(history: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    return [epoch.model_dump(exclude={"seconds", "samples_per_second"}) for epoch in history]


def outcome(config: RunConfig, trained: Trained) -> tuple[Any, ...]:
    """All that a run leaves behind but the time it took, down to the newest optimizer's bytes."""
    newest = checkpoints(config)[-1]
    written = [*sorted(newest.glob("*.safetensors")), newest / "optimizer.pt"]
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in written]
    return (
        without_times(trained.state.history),
        trained.checkpoint,
        trained.validation,
        trained.test,
        newest.name,
        files,
    )


def cut_after(number: int) -> Callable[[Progress], None]:
    """Cuts the power once `number` checkpoints were written."""
    seen: set[tuple[int, int, int]] = set()

    def send(progress: Progress) -> None:
        if progress.checkpoint is not None:
            seen.add((progress.checkpoint.stage, progress.checkpoint.epoch, progress.checkpoint.step))
        if len(seen) >= number:
            raise PowerCutError

    return send


STEPWISE = {"optimization": {"batchSize": 45, "precision": "Float32", "checkpointEverySteps": 3}}


@pytest.fixture
def uninterrupted(configure: Configure, tmp_path: Path) -> tuple[Any, ...]:
    config = configure(output=tmp_path / "uninterrupted", **STEPWISE)
    return outcome(config, run(config))


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_run_cut_off_anywhere_ends_bit_for_bit_like_an_uninterrupted_one(
    configure: Configure, tmp_path: Path, uninterrupted: tuple[Any, ...], number: int
) -> None:
    config = configure(output=tmp_path / "cut", **STEPWISE)
    with pytest.raises(PowerCutError):
        run(config, cut_after(number))
    assert outcome(config, run(config)) == uninterrupted


def test_a_damaged_newest_checkpoint_costs_only_what_came_after_the_one_before(
    configure: Configure, tmp_path: Path, uninterrupted: tuple[Any, ...]
) -> None:
    config = configure(output=tmp_path / "damaged", **STEPWISE)
    with pytest.raises(PowerCutError):
        run(config, cut_after(5))
    file = checkpoints(config)[-1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert outcome(config, run(config)) == uninterrupted


def test_a_run_cut_off_at_a_stages_end_is_shown_in_the_next_one_when_it_goes_on(configure: Configure) -> None:
    config = configure(
        unfreezing={"strategy": "LinearProbeThenFineTune", "stage": {"maxEpochs": 1}},
        optimization={"batchSize": 45, "headStart": "Epochs"},
    )
    with pytest.raises(PowerCutError):
        run(config, cut_after(1))
    sent: list[Progress] = []
    run(config, sent.append)
    first = sent[0]
    assert first.checkpoint is not None
    assert (first.checkpoint.stage, [row.index for row in first.stages]) == (1, [1])
    assert {progress.stage.index for progress in sent if progress.stage} == {2}


def test_what_a_stage_leaves_frozen_is_written_once_for_all_its_checkpoints(configure: Configure) -> None:
    config = configure(unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 3, "patience": 9}})
    run(config)
    frozen = [path / "frozen.safetensors" for path in checkpoints(config)]
    assert len(frozen) > 1
    assert len({path.stat().st_ino for path in frozen}) == 1
    sizes = [(path / "model.safetensors").stat().st_size for path in checkpoints(config)]
    assert max(sizes) < frozen[0].stat().st_size / 20


def test_a_finished_run_is_not_trained_again(configure: Configure) -> None:
    config = configure(unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": 1}})
    first = run(config)
    sent: list[Progress] = []
    again = run(config, sent.append)
    assert again == first
    assert {progress.progress.step for progress in sent} <= {4}


def test_checkpoints_of_another_configuration_are_refused(configure: Configure) -> None:
    stages = {"strategy": "HeadOnly", "stage": {"maxEpochs": 1}}
    run(configure(unfreezing=stages))
    with pytest.raises(RunError, match="another configuration") as caught:
        run(configure(unfreezing=stages, optimization={"batchSize": 30}))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_what_is_frozen_stays_bit_for_bit(configure: Configure) -> None:
    config = configure(unfreezing={"strategy": "Custom", "stages": [{"unfreeze": ["stage4"], "maxEpochs": 1}]})
    start = build_backbone(
        config.backbone, num_classes=10, dropout=0.2, seed=0, volumes_root=config.volumes_root, image_size=32
    )
    before = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
    after = weights(config, run(config).checkpoint)
    trained = tuple(module for group in start.groups if group.name in {"stage4", "head"} for module in group.modules)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(trained) for name in changed)
    assert any("running_mean" in name for name in changed)
    assert {name for name in before if name.startswith(trained)} - changed == set()


def test_training_stops_as_soon_as_the_target_is_met(configure: Configure) -> None:
    unfreezing = {"strategy": "Gradual", "maxStages": 3, "target": {"metric": "loss", "atMost": 100.0}}
    trained = run(configure(unfreezing=unfreezing))
    assert trained.reason is Reason.TARGET_MET
    assert [(row.name, row.epochs, row.ended) for row in trained.state.rows] == [("head", 1, "TargetMet")]


def test_a_missed_target_unfreezes_more_until_all_stages_ran(configure: Configure) -> None:
    unfreezing = {
        "strategy": "Gradual",
        "maxStages": 3,
        "stage": {"maxEpochs": 1},
        "target": {"metric": "accuracy", "atLeast": 1.0},
    }
    sent: list[Progress] = []
    trained = run(configure(unfreezing=unfreezing), sent.append)
    assert trained.reason is Reason.STAGES_COMPLETED
    assert [row.name for row in trained.state.rows] == ["head", "stage4..conv5", "stem..stage3"]
    assert [row.ended for row in trained.state.rows] == ["MaxEpochs"] * 3
    assert sent[-1].stage is not None
    assert (sent[-1].stage.index, sent[-1].stage.of, len(sent[-1].stages)) == (3, 3, 3)


def test_each_stage_begins_with_the_best_weights_so_far(configure: Configure) -> None:
    stages = [
        {"unfreeze": ["head"], "maxEpochs": 2, "learningRate": 10.0},  # the second epoch is worse than the first
        {"unfreeze": ["head"], "maxEpochs": 1, "learningRate": 1e-12},  # changes nothing, so it shows where it began
    ]
    config = configure(
        unfreezing={"strategy": "Custom", "stages": stages, "target": {"metric": "loss", "atMost": 0.0}},
        optimization={"batchSize": 45, "precision": "Float32", "schedule": "Constant"},
    )
    first, second, third = run(config).state.history
    assert first.validation["loss"] < second.validation["loss"]
    assert third.stage == 2
    assert third.validation["loss"] == pytest.approx(first.validation["loss"], rel=1e-6)


@pytest.mark.parametrize(("order", "second"), [("OutputFirst", "stage4..conv5"), ("InputFirst", "stem..stage2")])
def test_the_backbone_is_unfrozen_from_the_end_that_was_asked_for(
    configure: Configure, order: str, second: str
) -> None:
    unfreezing = {"strategy": "Gradual", "order": order, "maxStages": 3, "stage": {"maxEpochs": 1}}
    trained = run(configure(unfreezing=unfreezing))
    assert [row.name for row in trained.state.rows][:2] == ["head", second]


def test_a_run_that_diverges_says_so(configure: Configure) -> None:
    config = configure(
        backbone={"architecture": "squeezenet1_1"},  # without normalisation layers, which would tame any rate
        unfreezing={"strategy": "Full", "stage": {"maxEpochs": 3}},
        optimization={"learningRate": 10.0, "layerDecay": 1.0, "batchSize": 45, "schedule": "Constant"},
    )
    with pytest.raises(RunError) as caught:
        run(config)
    assert caught.value.reason is Reason.DIVERGED
    assert "learningRate" in caught.value.message


def test_batches_too_small_for_batch_norm_are_refused_before_training(configure: Configure) -> None:
    with pytest.raises(RunError, match=r"spec\.optimization\.batchSize 1 ") as caught:
        run(configure(optimization={"batchSize": 1}))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_bfloat16_trains_with_finite_losses_and_keeps_float32_weights(configure: Configure) -> None:
    config = configure(
        unfreezing={"strategy": "Full", "stage": {"maxEpochs": 1}},
        optimization={"batchSize": 45, "precision": "BFloat16"},
    )
    trained = run(config)
    assert all(math.isfinite(epoch.train_loss) for epoch in trained.state.history)
    assert {tensor.dtype for tensor in weights(config, trained.checkpoint).values()} == {torch.float32, torch.int64}
