"""How long `snowmelt run` takes to its first step, and from its last step to its end, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from bench.report.results import START_UP
from bench.tasks.task import Task
from snowmelt_trainer.contract.progress import Progress

FILE = START_UP
MOST_SECONDS = 600.0


def measure(task: Task, out: Path) -> dict[str, float]:
    """Runs a job of one epoch of the head, and keeps the parts in OUT/startup.json.

    Raises:
        RuntimeError: the run did not succeed.
    """
    with tempfile.TemporaryDirectory(prefix="snowmelt-bench-") as folder:
        began = datetime.now(UTC)
        ended = subprocess.run(
            [sys.executable, "-m", "snowmelt_cli", "run", _job(task, Path(folder)), "--volumes", folder],
            env=os.environ | {"XDG_CACHE_HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
        over = datetime.now(UTC)
        if ended.returncode:
            raise RuntimeError(f"snowmelt run failed:\n{ended.stdout}\n{ended.stderr}")
        (said,) = Path(folder).glob("snowmelt/runs/*/progress.jsonl")
        lines = said.read_text(encoding="utf-8").splitlines()
    found = parts([Progress.model_validate_json(line) for line in lines], began, over)
    (out / FILE).write_text(json.dumps(found), encoding="utf-8")
    return found


def parts(said: Sequence[Progress], began: datetime, over: datetime) -> dict[str, float]:
    """Seconds of each part, from what the trainer said and when. Steps are looked at once a second at most, so the
    first one may be up to a second earlier."""
    first = said[0].time
    staged = next(one.time for one in said if one.stage is not None)
    stepped = next(one.time for one in said if one.progress.step)
    final = next(one.time for one in said if one.final is not None)
    return {
        "the command and its trainer start (imports)": (first - began).total_seconds(),
        "data is read, Ray and its worker start, the network is built": (staged - first).total_seconds(),
        "the cache is filled and the first step is done": (stepped - staged).total_seconds(),
        "from there, one epoch, the evaluation and publishing": (final - stepped).total_seconds(),
        "everything is cleared away": (over - final).total_seconds(),
    }


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
