"""The benchmark of growing data: a real fit of few images, and what the page makes of the figures."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from bench.scale.measure import Cost, Part, Task, measure
from bench.scale.report import page, table
from hack.data.fashion_mnist import SOURCE, write


def cost(images: int, seconds: float, memory: float) -> Cost:
    head, last = Part("head", seconds / 2, 10.0), Part("layer4", seconds / 2, 0.0)
    return Cost(images, 0.0, (head, last), processor=seconds, peak_mib=memory, start_mib=300.0)


def test_a_fit_of_few_images_is_measured(tmp_path: Path) -> None:
    write(SOURCE, tmp_path / "images", 200)
    task = Task(str(tmp_path / "images/train"), architecture="resnet18", image_size=32, threads=1, cache_mib=1)
    found = measure(task, 100, tmp_path / "fit")
    assert found.images == 100
    assert [part.name for part in found.parts] == ["head", "layer4"]
    assert found.seconds > 0
    assert 0 < found.start_mib < found.peak_mib
    assert all(part.cached_mib <= task.cache_mib for part in found.parts)


def test_the_page_compares_the_two_largest_sizes() -> None:
    said = page([cost(1000, 5.0, 600.0), cost(30000, 90.0, 900.0), cost(60000, 180.0, 909.0)], Task("nowhere"),
                today=date(2026, 1, 1), load=0.1)  # fmt: skip
    assert "From 30,000 to 60,000 images, 2 times as many, took 2.00 times the time" in said
    assert "1.01 times the memory" in said


def test_what_was_not_kept_says_so() -> None:
    assert "| 10 | nothing |" in table([cost(1000, 5.0, 600.0)])
