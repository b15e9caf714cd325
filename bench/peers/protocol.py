"""What a contender is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import nn

from bench.peers.record import Budget, Record
from bench.tasks.task import Task


class Column(StrEnum):
    """How a peer is set up."""

    DEFAULTS = "defaults"
    """As its own documentation tells: float32, torch's memory format, images decoded in every epoch."""
    MATCHED = "matched"
    """With our precision and memory format, and images decoded once."""


@dataclass(frozen=True)
class Setting:
    """What is the same for the contenders of one cell, besides the task."""

    column: Column
    threads: int
    bfloat16: bool = False
    channels_last: bool = False
    device: str = "cpu"
    """As torch names it."""

    @property
    def decode_once(self) -> bool:
        return self.column is Column.MATCHED


@dataclass(frozen=True)
class Trial:
    """One fit, as it is asked for."""

    task: Task
    seed: int
    budget: Budget
    setting: Setting


class Fit(Protocol):
    """Builds the model and opens the data, calls record.start(), trains while record.step(…) says so, calls
    record.finish(), and returns the model to be tested. What comes before record.start() is start-up."""

    def __call__(self, trial: Trial, record: Record) -> nn.Module: ...


@dataclass(frozen=True)
class Contender:
    """A fit, how the report names it, and the distributions whose versions it reports."""

    name: str
    title: str
    load: Callable[[], Fit]
    """Imports it, so that one that is not installed costs nobody else anything."""
    distributions: tuple[str, ...] = ()
    columns: tuple[Column, ...] = (Column.DEFAULTS, Column.MATCHED)
    rival: bool = True
    """Whether ours is compared with it."""
