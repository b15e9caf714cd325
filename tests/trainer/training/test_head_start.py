"""The head by a solver: the optimum, whatever the number of workers and after a cut, and only where it can be used."""

from __future__ import annotations

import gc
import hashlib
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.multiprocessing as mp
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from snowmelt_trainer.backbones import build_backbone
from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.contract.progress import CachePlace, Progress
from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training import head_start, stage, walk
from snowmelt_trainer.training.activations import ActivationCache
from snowmelt_trainer.training.checkpoint import CheckpointStore
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.head_start import FIRST_PENALTY, FIRST_SHRINKAGE, LESS, WEAKENING, HeadSolver
from snowmelt_trainer.training.packing import unpack_model
from tests.trainer.training.runs import PowerCutError, run
from tests.trainer.training.solving import Kept, solve
from tests.trainer.training.test_cached_workers import train

Configure = Callable[..., RunConfig]
FloatArray = npt.NDArray[np.float64]
SOLVER = {"headStart": "Solver"}


def head_only(epochs: int) -> dict[str, Any]:
    return {"strategy": "HeadOnly", "stage": {"maxEpochs": epochs, "patience": epochs}}


def solver_of(head: nn.Linear, features: Tensor, labels: Tensor) -> HeadSolver:
    """Without label smoothing, as the only worker."""
    rows = Kept(features, labels)
    return HeadSolver(head, rows, World(), samples=len(labels), label_smoothing=0.0, tick=lambda: None)  # type: ignore[arg-type]


def whitened(features: Tensor, labels: Tensor, shrinkage: float) -> FloatArray:
    """By the textbook: standardised, and multiplied by a root of the inverse of the shrunken covariance within the
    classes."""
    standardised = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    means = np.stack([standardised[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    within = np.cov(standardised - means[labels], rowvar=False, bias=True)
    mixed = (1 - shrinkage) * within / within.diagonal().mean() + shrinkage * np.eye(len(within))
    whole: FloatArray = np.linalg.solve(np.linalg.cholesky(mixed), standardised.T).T
    return whole


def test_the_solution_is_that_of_scikit_learn_on_whitened_features() -> None:
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(40)
    features = 3.0 + torch.randn(120, 8) @ torch.randn(8, 8) * torch.arange(1, 9) + labels.unsqueeze(1)
    head = nn.Linear(8, 3)
    solver = solver_of(head, features, labels)
    for epoch in range(5):
        solver.solve(epoch)
        penalty, given = FIRST_PENALTY * WEAKENING**epoch, whitened(features, labels, FIRST_SHRINKAGE * LESS**epoch)
        theirs = LogisticRegression(C=1 / (penalty * 120), tol=1e-8, max_iter=1000).fit(given, labels)
        ours = head(features).softmax(1).detach().numpy()
        assert ours == pytest.approx(theirs.predict_proba(given), abs=2e-4)


def test_directions_in_which_a_class_varies_by_itself_are_dear() -> None:
    """Two classes lie apart by as much in two directions, in one of which each varies ten times as much as in the
    other: a whitened head leans on the steady one by more than a plain one does. The third is noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(200)
    features = torch.randn(400, 3, generator=generator) * torch.tensor([0.2, 2.0, 1.0])
    features[:, :2] += labels.unsqueeze(1).float()

    def leaning(solve: Callable[[HeadSolver, int], float]) -> float:
        head = nn.Linear(3, 2)
        solve(solver_of(head, features, labels), 2)
        steady, loose, _ = (head.weight[1] - head.weight[0]).tolist()
        return float(steady / loose)

    assert leaning(HeadSolver.solve) > 1.25 * leaning(HeadSolver.solve_plainly) > 0


def test_features_that_are_not_finite_end_as_a_loss_that_is_none() -> None:
    """By which the run ends as Diverged."""
    features, labels = torch.full((30, 4), torch.nan), torch.arange(3).repeat(10)
    head = nn.Linear(4, 3)
    solver = solver_of(head, features, labels)
    assert math.isnan(solver.solve(0))


def test_a_solved_head_fits_better_from_epoch_to_epoch_and_nothing_else_changes(configure: Configure) -> None:
    config = configure(unfreezing=head_only(3), data={"augmentation": "Strong"}, optimization=SOLVER)
    trained = run(config)
    losses = [epoch.train_loss for epoch in trained.state.history]
    assert losses == sorted(losses, reverse=True)
    (row,) = trained.state.rows
    assert (row.solved, row.epochs) == (True, 3)
    assert row.cache is not None
    assert row.cache.views == 1
    start = build_backbone(
        config.backbone, num_classes=10, dropout=0.2, seed=0, volumes_root="", image_size=config.data.image_size
    ).model
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    found = CheckpointStore(Layout.of(config).checkpoints).read(trained.checkpoint)
    assert found is not None
    unpack_model(start, found.model)
    changed = {name for name, tensor in start.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_the_images_are_solved_as_they_are_whatever_the_augmentation(configure: Configure, tmp_path: Path) -> None:
    losses = []
    for level in ("None", "Strong"):
        config = configure(
            output=tmp_path / level, unfreezing=head_only(2), data={"augmentation": level}, optimization=SOLVER
        )
        losses.append([epoch.train_loss for epoch in run(config).state.history])
    assert losses[0] == losses[1]


def outcome(config: RunConfig, trained: Trained) -> tuple[Any, ...]:
    newest = max(path for path in Layout.of(config).checkpoints.iterdir() if not path.name.startswith("."))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(newest.glob("*.safetensors"))]
    history = [epoch.model_dump(exclude={"seconds", "samples_per_second"}) for epoch in trained.state.history]
    return history, trained.validation, trained.test, newest.name, digests


@pytest.mark.parametrize("number", [1, 3])
def test_a_solver_cut_off_goes_on_bit_for_bit(configure: Configure, tmp_path: Path, number: int) -> None:
    def cut(progress: Progress) -> None:
        if progress.checkpoint is not None and progress.checkpoint.epoch == number:
            raise PowerCutError

    unfreezing = {"strategy": "Gradual", "maxStages": 2, "stage": {"maxEpochs": 4, "patience": 9}}
    whole = configure(output=tmp_path / "whole", unfreezing=unfreezing, optimization=SOLVER)
    broken = configure(output=tmp_path / "broken", unfreezing=unfreezing, optimization=SOLVER)
    with pytest.raises(PowerCutError):
        run(broken, cut)
    assert outcome(broken, run(broken)) == outcome(whole, run(whole))


def test_any_number_of_workers_finds_the_same_head(tmp_path: Path) -> None:
    found = []
    for size in (1, 2, 3):
        folder = tmp_path / f"{size}-workers"
        folder.mkdir()
        mp.spawn(solve, (size, str(folder)), nprocs=size)
        heads = [torch.load(folder / f"head-{rank}.pt", weights_only=True) for rank in range(size)]
        assert all(torch.equal(head["weight"], heads[0]["weight"]) for head in heads)
        assert len({head["loss"] for head in heads}) == 1
        found.append(heads[0])
    for other in found[1:]:
        assert other["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)
        assert torch.allclose(other["weight"], found[0]["weight"], atol=1e-3 * float(found[0]["weight"].abs().max()))


def test_two_workers_run_a_solved_stage_as_one_does(configure: Configure, tmp_path: Path) -> None:
    found = []
    for size in (1, 2):
        folder = tmp_path / f"{size}-workers"
        folder.mkdir()
        config = configure(output=folder / "models", uid=f"of-{size}", unfreezing=head_only(2), optimization=SOLVER)
        mp.spawn(train, (size, config.model_dump_json(by_alias=True), CachePlace.MEMORY, str(folder)), nprocs=size)
        found.append(Trained.model_validate_json((folder / "trained-0.json").read_bytes()).state)
    one, two = found
    assert two.rows[0].solved is True
    for loss in ("train_loss", "validation"):
        pairs = [
            (getattr(first, loss), getattr(second, loss))
            for first, second in zip(one.history, two.history, strict=True)
        ]
        assert all(second == pytest.approx(first, rel=1e-2) for first, second in pairs)


SQUEEZENET = {"architecture": "squeezenet1_1", "weights": "None"}


@pytest.mark.parametrize(("wanted", "told"), [("Solver", True), ("Auto", False)])
def test_a_head_that_is_no_linear_layer_is_trained_in_ordinary_epochs(
    configure: Configure, wanted: str, told: bool
) -> None:
    sent: list[Progress] = []
    config = configure(
        backbone=SQUEEZENET, unfreezing=head_only(1), optimization={"headStart": wanted, "batchSize": 45}
    )
    trained = run(config, sent.append)
    assert trained.state.rows[0].solved is None
    assert any("more than one linear layer" in warning for warning in sent[-1].warnings) is told


def test_features_that_do_not_fit_into_memory_are_not_solved_and_status_says_so(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_start, "free_memory", lambda: 1000)
    sent: list[Progress] = []
    trained = run(configure(unfreezing=head_only(1), optimization=SOLVER), sent.append)
    assert trained.state.rows[0].solved is None
    assert any("the solver takes" in warning for warning in sent[-1].warnings)


def test_maxbytes_bounds_the_features_and_the_solvers_copy_of_them_together(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the copy has no room they are read for every pass, which finds the same head, and saves no time."""
    read: list[int] = []

    def noted(cache: ActivationCache, most: int) -> Iterator[Batch]:
        read.append(most)
        saved = cache.saved
        yield from again(cache, most)
        assert cache.saved < saved

    again = ActivationCache.again
    monkeypatch.setattr(ActivationCache, "again", noted)
    held = run(configure(output=tmp_path / "held", unfreezing=head_only(2), optimization=SOLVER))
    assert read == []
    (row,) = held.state.rows
    assert row.cache is not None
    bound = {"cache": {"mode": "Always", "maxBytes": row.cache.bytes}}
    reread = run(configure(output=tmp_path / "reread", unfreezing=head_only(2), optimization=SOLVER | bound))
    assert read
    assert [one.train_loss for one in reread.state.history] == pytest.approx(
        [one.train_loss for one in held.state.history], rel=1e-4
    )


def test_a_solvers_copy_of_the_features_is_let_go_when_its_stage_has_ended(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when the next garbage collection happens to come: it may be as large as the cache."""
    solvers: list[weakref.ref[HeadSolver]] = []

    def noted(*arguments: Any) -> HeadSolver:
        solver = solver_of_stage(*arguments)
        solvers.append(weakref.ref(solver))
        return solver

    solver_of_stage = stage.solver_of
    monkeypatch.setattr(stage, "solver_of", noted)
    left: list[int] = []
    monkeypatch.setattr(walk, "give_back_freed_memory", lambda: left.append(sum(one() is not None for one in solvers)))
    gc.disable()
    try:
        run(configure(unfreezing=head_only(2), optimization=SOLVER))
    finally:
        gc.enable()
    assert len(solvers) == 1
    assert left == [0, 0], "before the stage, and after it"


def test_work_beyond_what_was_measured_is_not_solved_unasked(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(head_start, "MOST_WORK", 1000)
    solved = [
        run(configure(output=tmp_path / wanted, unfreezing=head_only(1), optimization={"headStart": wanted}))
        .state.rows[0]
        .solved
        for wanted in ("Auto", "Solver")
    ]
    assert solved == [None, True]
