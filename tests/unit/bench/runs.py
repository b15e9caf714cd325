"""Fits as the report reads them, made up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bench.report.results import Look, Run, Subject

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
SUBJECT = Subject("resnet18", "near", 64)


def look(seconds: float, accuracy: float, *, cpu: float = 0.0, samples: int = 0, trained: str = "") -> Look:
    return Look(seconds, cpu or seconds, samples, accuracy, trained)


def run(contender: str = "plain", column: str = "defaults", seed: int = 0, **fields: Any) -> Run:
    known: dict[str, Any] = {
        "subject": SUBJECT,
        "epochs": 6,
        "limit_seconds": 100.0,
        "load": 2.0,
        "threads": 2,
        "at": NOON,
        "machine": "a Xeon",
        "revision": "abc1234",
        "validation": 0.94,
        "test": 0.93,
        "validation_images": 1000,
        "test_images": 2000,
        "train_images": 1250,
    }
    return Run(contender=contender, column=column, seed=seed, **known | fields)


def row(**fields: Any) -> dict[str, Any]:
    """A line of the file of results."""
    known: dict[str, Any] = {
        "architecture": "resnet18",
        "task": "near",
        "image_size": 64,
        "contender": "plain",
        "column": "defaults",
        "seed": 0,
        "machine": "a Xeon",
        "revision": "abc1234",
        "at": "2026-11-25T06:00:00+00:00",
        "epochs": 6,
        "limitSeconds": None,
        "threads": 2,
        "loadBefore": 0.1,
        "loadAfter": 2.0,
        "points": [{"seconds": 5.0, "cpu_seconds": 9.0, "samples": 1250, "accuracy": 0.9, "trained": "11.18M"}],
        "figures": {
            "memoryBeforeMiB": 500.0,
            "peakMemoryMiB": 800.0,
            "seconds": 10.0,
            "cpuSeconds": 18.0,
            "samples": 2500,
            "cutOff": False,
        },
        "test": 0.93,
        "validation": 0.94,
        "trainImages": 1250,
        "validationImages": 1000,
        "testImages": 2000,
        "importSeconds": 2.0,
        "startUpSeconds": 0.2,
        "bfloat16": False,
        "channelsLast": False,
        "versions": {"torch": "2.15.0"},
    }
    return known | fields
