"""A run whose room comes and goes: it grows, it shrinks, and it learns the same as one that was left alone."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)

from hack.kube.controlplane import eventually
from snowmelt_trainer.contract import Outcome, RunConfig
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.driver import launch, scaling
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.handover import Handover, handover
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.main import fine_tune
from snowmelt_trainer.training.state import Epoch
from tests.trainer.training.processes import train_workers
from tests.trainer.training.runs import run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
Configure = Callable[..., RunConfig]
EXAMPLES = Path(__file__).parents[3] / "examples"
CPUS = 4
"""That the Ray of these tests has."""
PATIENCE_SECONDS = 120.0
EPOCHS = 60


class Neighbour:
    """Somebody else on the same Ray, whose claim to CPUs goes before the run's."""

    def __init__(self) -> None:
        self._coordinator = get_or_create_autoscaling_coordinator()

    def takes(self, cpus: int) -> None:
        first = SimpleNamespace(value=10**9)  # a priority above all that Ray has a name for
        claim = {
            "requester_id": "neighbour",
            "resources": [{"CPU": 1}] * cpus,
            "expire_after_s": 3600,
            "priority": first,
        }
        ray.get(self._coordinator.request_resources.remote(**claim))

    def leaves(self) -> None:
        ray.get(self._coordinator.cancel_request.remote("neighbour"))


@dataclass
class Weather:
    """Makes room for a second worker early in the run; once two got on, takes it back and kills one of them."""

    neighbour: Neighbour
    desks: list[Handover]
    sent: list[Progress] = field(default_factory=list)
    cleared_at: int = 0
    killed_at: int = 0

    def __call__(self, progress: Progress) -> None:
        self.sent.append(progress)
        epochs = progress.checkpoint.epoch if progress.checkpoint else 0
        if not self.cleared_at and epochs >= 2:
            self.cleared_at = epochs
            self._clear()
        elif not self.killed_at and progress.progress.workers == 2 and epochs >= self._first_of_two() + 2:
            self.killed_at = epochs
            self.neighbour.takes(CPUS - 1)
            os.kill(train_workers()[-1], signal.SIGKILL)

    def _first_of_two(self) -> int:
        return next(said.progress.epoch for said in self.sent if said.progress.workers == 2)

    def _clear(self) -> None:
        (worker,) = train_workers()
        os.kill(worker, signal.SIGSTOP)  # or the run might be over before the room is seen
        try:
            self.neighbour.leaves()
            eventually(lambda: ray.get(self.desks[0]._desk.is_open.remote()), "no worker came", PATIENCE_SECONDS)
        finally:
            os.kill(worker, signal.SIGCONT)


def where(progress: Progress) -> tuple[int, int]:
    return progress.stage.index if progress.stage else 0, progress.progress.step


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> RunConfig:
    """The head alone, on the letters' backbone: no BatchNorm is trained, whose statistics depend on the number."""
    shutil.copytree(EXAMPLES / "backbones", tmp_path / "volumes" / "backbones")
    weights = "pvc://backbones/letters-shufflenet_v2_x0_5.safetensors"
    config = configure(
        workers={"elastic": {"min": 1, "max": 2}},
        backbone={"weights": None, "weightsFrom": {"uri": weights}},
        unfreezing={"strategy": "HeadOnly", "stage": {"maxEpochs": EPOCHS, "patience": EPOCHS}},
        optimization={"learningRate": 0.01, "regularization": {"dropout": 0.0}},
    )
    return config.model_copy(update={"volumes_root": str(tmp_path / "volumes")})


@pytest.mark.timeout(900)  # three starts of a worker group, on machines of any load
def test_a_run_grows_and_shrinks_with_the_room_and_learns_as_if_nothing_had_been(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks: list[Handover] = []

    @contextmanager
    def watched_handover() -> Iterator[Handover]:
        with handover() as desk:
            desks.append(desk)
            yield desk

    monkeypatch.setattr(launch, "handover", watched_handover)
    monkeypatch.setattr(scaling, "LOOK_FOR_ROOM_SECONDS", 1.0)
    neighbour = Neighbour()
    neighbour.takes(CPUS - 1)
    weather = Weather(neighbour, desks)
    record = fine_tune(config, Announcer(1, weather))
    assert record.outcome is Outcome.SUCCEEDED, record.message

    lines = (Layout.of(config).root / "history.jsonl").read_text().splitlines()
    epochs = [Epoch.model_validate_json(line) for line in lines]
    assert [epoch.epoch for epoch in epochs] == list(range(1, EPOCHS + 1))
    numbers = [epoch.workers for epoch in epochs]
    assert [n for n, before in zip(numbers, [0, *numbers], strict=False) if n != before] == [1, 2, 1]
    assert_nothing_before_a_checkpoint_is_trained_again(weather.sent)

    elsewhere = config.model_copy(
        update={"output": config.output.model_copy(update={"uri": config.output.uri + "-alone"})}
    )
    alone = run(elsewhere).state.history
    assert [e.train_loss for e in epochs] == pytest.approx([e.train_loss for e in alone], rel=1e-3)
    assert epochs[-1].validation == pytest.approx(alone[-1].validation, rel=1e-3)
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss  # it did learn


def assert_nothing_before_a_checkpoint_is_trained_again(sent: list[Progress]) -> None:
    for before, after in itertools.pairwise(sent):
        if where(after) < where(before):
            newest = [p.checkpoint for p in sent[: sent.index(after)] if p.checkpoint][-1]
            assert where(after) >= (newest.stage, newest.step)
