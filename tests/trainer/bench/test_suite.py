"""The benchmark end to end, on 100 digits for an epoch, with the contenders that need no further packages."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from bench.peers.clock import Stopwatch
from bench.peers.contenders import RIVALS, TITLES
from bench.peers.protocol import Column
from bench.peers.record import Budget, Record
from bench.report.machine import Where
from bench.report.page import page
from bench.report.results import START_UP, read, read_start_up
from bench.report.verdicts import comparisons
from bench.suite.cell import Order, outcome
from bench.suite.order import Cell, Entry, Subject
from bench.suite.runner import FILE, Runner
from bench.tasks.images import TaskName, shifted, splits_of
from bench.tasks.task import Task
from hack.data.folders import write_folders

CUT_OFF = 10_000.0
"""Never reached: on a busy machine a closer one would cut the fit off before its first stage has ended."""
DOCS = Path(__file__).parents[3] / "docs"
SUBJECT = Subject("shufflenet_v2_x0_5", "far", 32)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = tmp_path_factory.mktemp("far")
    for split, images in splits_of(TaskName.FAR).items():
        chosen = range(0, len(images.labels), 9 if split == "train" else 20)
        write_folders(root / split, ((images.labels[i], f"{i}", Image.fromarray(images.pixels[i])) for i in chosen))
    return Task("far", root, SUBJECT.architecture, SUBJECT.image_size, weights=None)


def runner_in(folder: Path, *, machine: str = "this one", epochs: int = 1, cut_off: float = CUT_OFF) -> Runner:
    where = Where(machine, "abc1234")
    return Runner(folder, logs=folder / "log", where=where, epochs=epochs, cut_off=cut_off, threads=1)


def test_contenders_are_measured_alike_and_a_rerun_finds_what_was_done(task: Task, tmp_path: Path) -> None:
    runner = runner_in(tmp_path)
    cells = [Cell(SUBJECT, Entry(*entry), 0) for entry in (("plain", "defaults"), ("ours", "defaults"))]
    for cell in cells:
        said = runner.run(cell, task)
        assert "FAILED" not in said, said
    assert runner_in(tmp_path).done() == cells
    assert runner_in(tmp_path, epochs=2).done() == [], "another rule is another benchmark"
    assert runner_in(tmp_path, machine="another").done() == [], "what another machine did compares with nothing here"
    plain, ours = read(runner.file)
    assert plain.limit_seconds is None
    assert ours.limit_seconds == pytest.approx(CUT_OFF * plain.seconds)
    for run in (plain, ours):
        assert run.test_images == 25
        assert 0.0 < run.looks[0].seconds <= run.seconds
        assert run.cpu_seconds > 0
        assert run.memory_mib > 0
    assert plain.looks[-1].samples == 100
    assert "1: head" in dict(ours.stage_speeds)
    assert ours.caches, "the product caches by default where nothing is augmented"


def test_a_contender_that_fails_says_why_and_is_tried_again(task: Task, tmp_path: Path) -> None:
    ordered = asdict(replace(task, architecture="no_such_network", root=str(task.root)))  # type: ignore[arg-type]
    said = outcome(Order(ordered, "plain", Column.DEFAULTS, seed=0, epochs=1, seconds=None, threads=1))
    assert "no_such_network" in said["error"]
    runner = runner_in(tmp_path, cut_off=2.0)
    cell = Cell(SUBJECT, Entry("plain", "defaults"), 0)
    runner.file.write_text(json.dumps(cell.key | {"epochs": 1, "machine": "this one"} | said) + "\n")
    assert runner.done() == []


def test_the_clocks_stand_still_while_the_record_evaluates() -> None:
    now = 0.0

    def evaluation(model: nn.Module) -> float:
        nonlocal now
        now += 100.0
        model.eval()
        return 0.5

    watch = Stopwatch(wall=lambda: now, cpu=lambda: now)
    record = Record(evaluation, Budget(epochs=1, seconds=7.0), every=10, watch=watch)
    model = nn.Sequential(nn.Dropout()).train()
    record.start()
    go_on = []
    for _ in range(3):
        now += 3.0
        go_on.append(record.step(model, 5))
    assert [(point.seconds, point.samples) for point in record.points] == [(6.0, 10)]
    assert model[0].training, "modes are as before"
    now += 1.0
    go_on.append(record.step(model, 5))
    assert record.points[-1].seconds == 10.0
    assert go_on == [True, True, True, False], "the budget of seven seconds is spent"


def test_shifted_images_are_inverted_and_flattened_and_the_same_every_time() -> None:
    pixels = splits_of(TaskName.FAR)["train"].pixels
    there = shifted(pixels, seed=3)
    assert (there == shifted(pixels, seed=3)).all()
    assert there[pixels == 0].mean() > there[pixels == 255].mean()
    assert there.std() < pixels.std()


def test_the_page_in_docs_says_what_the_results_beside_it_say() -> None:
    rows = DOCS / "benchmarks" / FILE
    runs = read(rows)
    written = page(
        runs,
        comparisons(runs, RIVALS),
        TITLES,
        start_up=read_start_up(rows.with_name(START_UP)),
        rows=str(rows.relative_to(DOCS)),
    )
    assert written == (DOCS / "benchmarks.md").read_text(encoding="utf-8")
