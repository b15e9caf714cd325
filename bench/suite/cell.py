"""`python -m bench.suite.cell ORDER.json RESULT.json`: one fit, in this process."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.peers.contenders import contender
from bench.peers.looking import Split, accuracy_on, opened, recorder
from bench.peers.protocol import Column, Setting, Trial
from bench.peers.record import Budget
from bench.report.machine import installed
from bench.tasks.task import Task
from snowmelt_trainer.backbones.network import build_skeleton
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import choose_precision


@dataclass(frozen=True)
class Order:
    """One fit, as the suite asks for it."""

    task: dict[str, Any]
    contender: str
    column: Column
    seed: int
    epochs: int
    seconds: float | None
    threads: int
    device: str = "cpu"


def carry_out(order: Order) -> dict[str, Any]:
    """Trains, tests, and returns all that was measured."""
    torch.set_num_threads(order.threads)
    task = Task(**order.task | {"root": Path(order.task["root"]), "weights": _path(order.task["weights"])})
    one, setting = contender(order.contender), setting_of(order, task)
    began = time.monotonic()
    fit = one.load()
    imported = time.monotonic()
    splits = opened(task)
    trial = Trial(task, order.seed, Budget(order.epochs, order.seconds), setting)
    record = recorder(trial, splits)
    called = time.monotonic()
    model = fit(trial, record)
    return record.result() | {
        "test": accuracy_on(splits[Split.TEST], trial)(model),
        "validation": record.accuracy_of(model),
        "trainImages": len(splits[Split.TRAIN]),
        "validationImages": len(splits[Split.VALIDATION]),
        "testImages": len(splits[Split.TEST]),
        "importSeconds": imported - began,
        "startUpSeconds": record.figures["startedAt"] - called,
        "bfloat16": setting.bfloat16,
        "channelsLast": setting.channels_last,
        "versions": installed(one.distributions),
    }


def outcome(order: Order) -> dict[str, Any]:
    """As `carry_out`; a contender that fails is in the report, with what it said."""
    try:
        return carry_out(order)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def setting_of(order: Order, task: Task) -> Setting:
    """Float32 and torch's own format, or what our trainer chooses on this machine."""
    if order.column is not Column.MATCHED:
        return Setting(order.column, order.threads, device=order.device)
    model = build_skeleton(task.architecture, num_classes=len(task.classes), image_size=task.image_size)
    chosen = choose_precision(Precision.AUTO, World(device=torch.device(order.device)), model)
    return Setting(
        order.column,
        order.threads,
        bfloat16=chosen is Precision.BFLOAT16,
        channels_last=True,
        device=order.device,
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def main() -> None:
    order_file, result_file = map(Path, sys.argv[1:])
    document = json.loads(order_file.read_text(encoding="utf-8"))
    order = Order(**document | {"column": Column(document["column"])})
    logging.getLogger("snowmelt_trainer").setLevel(logging.WARNING)
    result_file.write_text(json.dumps(outcome(order)), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever threads a contender has left


def as_document(order: Order) -> str:
    """What `main` reads."""
    return json.dumps(asdict(order))


if __name__ == "__main__":
    main()
