"""What is noted of a fit while it goes on. The same object, with the same evaluation, for every contender."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from bench.peers.clock import Stopwatch, forget_peak, resident_mib
from snowmelt_trainer.accelerator import settle


@dataclass(frozen=True)
class Point:
    """One look at the validation data."""

    seconds: float
    """Since the fit began, evaluations left out."""
    cpu_seconds: float
    samples: int
    """Training images seen, each time counted."""
    accuracy: float
    trained: str
    """What is being trained: a stage's name, or how many parameters."""


@dataclass(frozen=True)
class Budget:
    """The stopping rule: the method's own schedule over `epochs`, cut off after `seconds`."""

    epochs: int
    seconds: float | None = None
    """Of the wall clock, evaluations left out; None: no limit."""


@dataclass
class Record:
    """Watches one fit. Between `start` and `finish` the clock runs; `step` looks at the validation data by itself."""

    accuracy_of: Callable[[nn.Module], float]
    budget: Budget
    every: int
    """Training images between two looks."""
    device: str = "cpu"
    """Where the fit computes, as torch names it."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    points: list[Point] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Whatever else the contender says of its fit."""
    samples: int = 0
    spent: bool = False
    """The budget's seconds are over: the fit was cut off."""
    _seen: int = 0

    def start(self) -> None:
        settle(torch.device(self.device))
        self.figures |= {"memoryBeforeMiB": self._memory_before(), "startedAt": time.monotonic()}
        self.watch.start()

    def step(self, model: nn.Module, samples: int) -> bool:
        """After an optimizer step on so many images, with the model that would be delivered now; False: the budget is
        spent, stop."""
        self.samples += samples
        if self.samples // self.every > self._seen:
            self._seen = self.samples // self.every
            self.look(model)
        return not self.spent

    def look(self, model: nn.Module) -> None:
        """Evaluates, with the clocks standing still; the modules' modes are as before. A second look at the same
        samples is none."""
        if self.points and self.points[-1].samples == self.samples:
            return
        settle(torch.device(self.device))
        seconds, cpu = self.watch.read()
        with self.watch.paused():
            modes = [(module, module.training) for module in model.modules()]
            accuracy = self.accuracy_of(model)
            for module, training in modes:
                module.training = training
        self._add(Point(seconds, cpu, self.samples, accuracy, _trained(model)))

    def observed(self, accuracy: float, samples: int, trained: str) -> bool:
        """As `step`, for a contender that evaluates by itself (with the clocks paused)."""
        self.samples = samples
        self._add(Point(*self.watch.read(), samples, accuracy, trained))
        return not self.spent

    def finish(self) -> None:
        """The fit is over; the final test does not count any more."""
        settle(torch.device(self.device))
        seconds, cpu = self.watch.read()
        self.figures |= {
            "seconds": seconds,
            "cpuSeconds": cpu,
            "peakMemoryMiB": self._peak_memory(),
            "samples": self.samples,
            "cutOff": self.spent,
        }

    @property
    def finished(self) -> bool:
        return "seconds" in self.figures

    def result(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {"points": [asdict(point) for point in self.points], "figures": self.figures}

    def adopt(self, result: dict[str, Any]) -> None:
        """What another process's record says of this fit; what this one had noted before stays."""
        self.points = [Point(**point) for point in result["points"]]
        self.figures |= result["figures"]
        self.samples, self.spent = self.figures["samples"], self.figures["cutOff"]

    def _memory_before(self) -> float:
        """MiB from which the fit's memory is counted, with the peak forgotten: of an accelerator's, all counts."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return 0.0
        forget_peak()
        return resident_mib("VmRSS")

    def _peak_memory(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.device == "cuda" else resident_mib("VmHWM")

    def _add(self, point: Point) -> None:
        self.points.append(point)
        self.spent = self.budget.seconds is not None and point.seconds >= self.budget.seconds


@torch.no_grad()
def _trained(model: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{count / 1e6:.2f}M parameters"
