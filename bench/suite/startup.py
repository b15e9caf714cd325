"""How long `snowmelt run` takes to its first step, and from its last step to its end, on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import yaml

from bench.report.machine import Where
from bench.report.results import START_UP
from bench.tasks.task import Task
from snowmelt_trainer.contract.progress import Progress

FILE = START_UP
MOST_SECONDS = 600.0
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")
"""With which the trainer's lines begin."""


def measure(task: Task, out: Path, where: Where) -> dict[str, float]:
    """Runs a job of one epoch of the head, and keeps the parts in OUT/startup.json.

    Raises:
        RuntimeError: the run did not succeed.
    """
    with tempfile.TemporaryDirectory(prefix="snowmelt-") as name:
        folder, began = Path(name), time.time()
        ended = subprocess.run(
            [sys.executable, "-m", "snowmelt_cli", "run", _job(task, folder), "--volumes", folder],
            env=os.environ | {"XDG_CACHE_HOME": name, "RAY_TMPDIR": name, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
        over = time.time()
        if ended.returncode:
            raise RuntimeError(f"snowmelt run failed:\n{ended.stdout}\n{ended.stderr}")
        (run,) = folder.glob("snowmelt/runs/*")
        found = parts(
            [Progress.model_validate_json(line) for line in (run / "progress.jsonl").read_text().splitlines()],
            [*(run / "trainer.log").read_text().splitlines(), *_lines_of_workers(folder)],
            began=began,
            configured=(run / "config.json").stat().st_mtime,
            over=over,
        )
    (out / FILE).write_text(json.dumps(asdict(where) | {"parts": found}), encoding="utf-8")
    return found


def _lines_of_workers(folder: Path) -> Iterator[str]:
    """What Ray's workers have logged; Ray keeps it below RAY_TMPDIR."""
    for file in folder.glob("ray/session_2*/logs/worker-*.err"):
        yield from file.read_text(errors="replace").splitlines()


def parts(
    said: Sequence[Progress], logged: Sequence[str], *, began: float, configured: float, over: float
) -> dict[str, float]:
    """Seconds of each part, from what the trainer said and logged, and when; moments are seconds since 1970. Steps are
    looked at once a second at most, so the first one may be up to a second earlier."""
    moments = {
        "the command starts: Python, its imports": configured,
        "the trainer starts: torch and Ray are imported": said[0].time.timestamp(),
        "ours: the data is read": moment_of("the data is read", logged),
        "Ray starts": moment_of("Ray is reached", logged),
        "Ray Train starts its controller and a worker, which import torch": moment_of("worker 1 of 1", logged),
        "ours: the network is built": next(one.time for one in said if one.stage is not None).timestamp(),
        "ours: what a cache would cost is measured": moment_of("stage 1: cache", logged),
        "training: the frozen layers run over every image, and a first head is solved": next(
            one.time for one in said if one.progress.step
        ).timestamp(),
        "from there, one epoch, the evaluation and publishing": next(
            one.time for one in said if one.final is not None
        ).timestamp(),
        "everything is cleared away": over,
    }
    before = [began, *moments.values()]
    return {part: moment - earlier for (part, moment), earlier in zip(moments.items(), before, strict=False)}


def moment_of(words: str, logged: Sequence[str]) -> float:
    """When a line with these words was logged, in seconds since 1970.

    Raises:
        ValueError: there is none.
    """
    for line in logged:
        stamp = STAMP.match(line)
        if stamp is not None and words in line:
            return datetime.strptime(stamp[0], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007 (local, as logged)
    raise ValueError(f"the trainer did not log {words!r}")


def _job(task: Task, folder: Path) -> Path:
    document = {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "startup"},
        "spec": {
            "backbone": task.backbone,
            "data": task.data,
            "unfreezing": {"strategy": "HeadOnly", "stage": {"maxEpochs": 1}},
            "output": {"uri": (folder / "model").as_uri()},
        },
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
