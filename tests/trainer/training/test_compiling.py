"""When the trained layers are compiled, that it changes nothing but the time, and what becomes of it when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from snowmelt_trainer.contract import RunConfig
from snowmelt_trainer.training import stage
from snowmelt_trainer.training.compiling import (
    GAIN,
    TIMES,
    WARM_UP_SECONDS,
    Compilable,
    Compiler,
    Layers,
    worth_compiling,
)
from snowmelt_trainer.training.distributed import World
from tests.trainer.training.runs import run

Configure = Callable[..., RunConfig]
GPU, PROCESSOR = torch.device("cuda", 0), torch.device("cpu")
EVERYTHING = {"strategy": "Full", "stage": {"maxEpochs": 3, "patience": 9}}


class Counting:
    """Compiles as torch's tracer and autograd do, without code of its own; counts the graphs, and the calls of what it
    makes."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, layers: Layers) -> Layers:
        traced = torch.compile(layers, backend=self._backend)

        def called(inputs: Tensor) -> Tensor:
            self.calls += 1
            return traced(inputs)

        return called

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, inputs)  # type: ignore[no-any-return]


def refuse(layers: Layers) -> Layers:
    def called(inputs: Tensor) -> Tensor:
        layers(inputs)
        raise RuntimeError("no C++ compiler\nand a long story")

    return called


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


def at_once(_seconds: float, _device: torch.device) -> bool:
    return True


class Watch:
    """A clock that a step moves on by as much as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def train(layers: Compilable, watch: Watch, *, seconds: float, steps: int = 5, left: int = 50) -> bool:
    """An epoch whose steps take so long; whether it began with compiling."""
    inputs = torch.ones(3, 4)
    compiles = layers.begin_epoch(left)
    if compiles:
        watch.now += 40.0
        layers.compile_for(inputs)
    for _ in range(steps):
        layers(inputs)
        watch.now += seconds
    layers.end_epoch()
    return compiles


@given(st.floats(0, 1e7))
def test_layers_are_compiled_where_that_saves_twice_what_it_costs_at_the_least(seconds_left: float) -> None:
    saved = seconds_left * GAIN
    assert worth_compiling(seconds_left, GPU) == (saved >= TIMES * WARM_UP_SECONDS)
    assert not worth_compiling(seconds_left, PROCESSOR)


def test_the_first_epoch_says_how_much_is_left() -> None:
    watch, asked = Watch(), []

    def worth(seconds_left: float, device: torch.device) -> bool:
        asked.append((seconds_left, device))
        return False

    layers = Compilable(network(), World(), worth=worth, compiler=Counting(), clock=watch)
    assert not train(layers, watch, seconds=2.0)
    assert not train(layers, watch, seconds=3.0, left=45)
    assert not train(layers, watch, seconds=3.0, left=40)
    assert asked == [(90.0, PROCESSOR), (120.0, PROCESSOR)]


def test_layers_that_are_quicker_compiled_stay_so() -> None:
    watch, compiler = Watch(), Counting()
    layers = Compilable(network(), World(), worth=at_once, compiler=compiler, clock=watch)
    begun = [train(layers, watch, seconds=seconds) for seconds in (2.0, 1.9, 1.9)]
    assert begun == [False, True, False]
    assert (compiler.graphs, compiler.calls) == (1, 1 + 10)  # once to try


def test_layers_that_are_no_quicker_compiled_run_as_they_are_again(caplog: pytest.LogCaptureFixture) -> None:
    watch, compiler = Watch(), Counting()
    layers = Compilable(network(), World(), worth=at_once, compiler=compiler, clock=watch)
    with caplog.at_level("INFO"):
        begun = [train(layers, watch, seconds=seconds) for seconds in (2.0, 2.1, 2.0, 2.0)]
    assert begun == [False, True, False, False]
    assert compiler.calls == 1 + 5
    assert "2.1 s a step compiled, 2 as it was" in caplog.text


def test_layers_are_compiled_once_for_any_number_of_images_and_not_for_a_single_one() -> None:
    compiler = Counting()
    layers = Compilable(network().eval(), World(), compiler=compiler)
    assert layers.compile_for(torch.ones(3, 4)) == ""
    for images in (2, 3, 4, 9):
        layers(torch.ones(images, 4))
    assert (compiler.graphs, compiler.calls) == (1, 1 + 4)
    layers(torch.ones(1, 4))
    assert (compiler.graphs, compiler.calls) == (1, 1 + 4)


@pytest.mark.parametrize("compiler", [Counting(), refuse], ids=["compiled", "refused"])
def test_trying_what_was_compiled_changes_neither_statistics_nor_gradients_nor_random_numbers(
    compiler: Compiler,
) -> None:
    layers = Compilable(network(), World(), compiler=compiler)
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    numbers = torch.get_rng_state()
    layers.compile_for(torch.rand(3, 4, generator=torch.Generator().manual_seed(1)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layers.state_dict().items())
    assert all(one.grad is None for one in layers.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_layers_that_cannot_be_compiled_are_tried_once() -> None:
    watch = Watch()
    layers = Compilable(network(), World(), worth=at_once, compiler=refuse, clock=watch)
    begun = [train(layers, watch, seconds=2.0) for _ in range(4)]
    assert begun == [False, True, False, False]
    assert layers.compile_for(torch.ones(3, 4)) == "no C++ compiler"


def test_compiled_layers_have_the_losses_of_the_others(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of an epoch differ by an image."""
    found, compiler = [], Counting()
    for name in ("as they are", "compiled"):
        if name == "compiled":
            monkeypatch.setattr(stage, "Compilable", partial(Compilable, worth=at_once, compiler=compiler))
            monkeypatch.setattr(Compilable, "end_epoch", _never_given_up)
        trained = run(configure(output=tmp_path / name, unfreezing=EVERYTHING, optimization={"batchSize": 26}))
        found.append([epoch.train_loss for epoch in trained.state.history])
    steps = len(range(0, 180, 26))
    assert (compiler.graphs, compiler.calls) == (1, 1 + 2 * steps)
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def _never_given_up(self: Compilable) -> None:
    self._as_it_is = 1.0


def test_status_says_why_layers_were_not_compiled(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "Compilable", partial(Compilable, worth=at_once, compiler=refuse))
    warnings: list[str] = []
    trained = run(configure(unfreezing=EVERYTHING), lambda progress: warnings.extend(progress.warnings))
    assert [epoch.epoch for epoch in trained.state.history] == [1, 2, 3]
    assert set(warnings) == {"stage 1 (all): its layers are not compiled: no C++ compiler"}


def follow(rank: int, size: int, folder: str) -> None:
    """Two decisions and a failure on one worker alone; what each saw lies in `folder`/RANK.json."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    seen: list[Any] = []
    for eager in (True, False):  # the leader would compile, or the other would
        watch = Watch()
        wants = (rank == 0) is eager
        compiler: Compiler = refuse if rank == 1 else Counting()
        layers = Compilable(network(), World(rank, size), worth=lambda *_, w=wants: w, compiler=compiler, clock=watch)
        train(layers, watch, seconds=2.0)
        begins = layers.begin_epoch(45)
        seen.append([begins, layers.compile_for(torch.ones(3, 4)) if begins else None, layers._compiled is None])
    Path(folder, f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def test_workers_change_over_together_or_not_at_all(tmp_path: Path) -> None:
    mp.spawn(follow, (2, str(tmp_path)), nprocs=2)
    leader, other = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert leader == [[True, "another worker could not", True], [False, None, True]]
    assert other == [[True, "no C++ compiler", True], [False, None, True]]
