"""A FineTuneJob on this machine: its configuration, its process, and what the process says of itself."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.render.config import run_config
from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.contract.run import JobIdentity, RunConfig
from snowmelt_trainer.contract.uri import claim_of, to_path

LOCAL = "local"
"""The namespace of jobs that run without Kubernetes."""
DECIDES_THE_MODEL = ("backbone", "data", "unfreezing", "optimization", "output")
POLL_SECONDS = 0.1
STOP_SECONDS = 30.0
"""How long the trainer may take to stop before it is killed; it keeps checkpoints, so nothing is lost then either."""
FAREWELL_SECONDS = 20.0
"""How long the trainer may take to end after its last word; all that matters is written before that."""
LAST_WORDS = 15


class LocalRunError(Exception):
    """The job cannot run here; the message says why, and what to do."""


@dataclass(frozen=True)
class LocalRun:
    """Where a run on this machine keeps what."""

    config: RunConfig
    directory: Path
    """Configuration, progress and log. The model, and the checkpoints, lie under output.uri."""

    @property
    def log(self) -> Path:
        return self.directory / "trainer.log"

    @property
    def progress(self) -> Path:
        return self.directory / "progress.jsonl"

    @property
    def output(self) -> Path:
        return to_path(self.config.output.uri, self.config.volumes_root)

    @property
    def state(self) -> Path:
        """Checkpoints of this very run."""
        return self.output / ".snowmelt" / self.config.job.uid


def plan_run(job: FineTuneJob, *, volumes: Path, cache: Path) -> LocalRun:
    """The run of a job on this machine. Running it again resumes it: the uid follows from what decides the model.

    Raises:
        LocalRunError: when a volume is missing, or the workers ask for GPUs that this machine does not have.
    """
    identity = JobIdentity(namespace=LOCAL, name=job.metadata.name, uid=uid_of(job))
    config = run_config(job.spec, identity, progress=None, volumes_root=str(volumes.resolve()))
    _check_volumes(config, volumes)
    if config.workers.gpus and not _has_gpu():
        raise LocalRunError(
            "spec.workers.resources: the workers ask for GPUs and this machine has none: "
            "leave nvidia.com/gpu out to train on the CPU"
        )
    return LocalRun(config, cache / "runs" / f"{job.metadata.name}-{identity.uid[-8:]}")


def uid_of(job: FineTuneJob) -> str:
    """The same for the same name and the same training; what may change while a job lives does not enter."""
    document = job.spec.model_dump(mode="json", by_alias=True, include=set(DECIDES_THE_MODEL))
    digest = hashlib.sha256(json.dumps([job.metadata.name, document], sort_keys=True).encode())
    return f"{LOCAL}-{digest.hexdigest()[:16]}"


def _check_volumes(config: RunConfig, volumes: Path) -> None:
    data = config.data
    read = {"data.train.uri": data.train.uri, "data.validation.uri": data.validation.uri}
    read |= {"data.test.uri": data.test.uri if data.test else None}
    weights = config.backbone.weights_from
    read |= {"backbone.weightsFrom.uri": weights.uri if weights else None}
    for field, uri in read.items():
        claim = claim_of(uri) if uri else None
        if claim is not None and not (volumes / claim).is_dir():
            raise LocalRunError(
                f"spec.{field}: {uri} is the folder {volumes / claim} here, which does not exist: make it, "
                "or name the folder that holds your volumes by --volumes DIR"
            )


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def set_aside(run: LocalRun, now: datetime) -> Path | None:
    """Moves the state of earlier runs of this job away, so that it starts anew; where to, or None if there is none."""
    if not run.state.exists():
        return None
    kept = run.state.with_name(f"{run.state.name}-until-{now:%Y%m%dT%H%M%SZ}")
    return run.state.rename(kept)


class TrainerProcess:
    """The trainer's driver as a process of its own, in a session of its own, so that Ctrl-C reaches only us."""

    def __init__(self, run: LocalRun) -> None:
        self._run = run
        run.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = run.directory / "config.json"
        config.write_text(run.config.model_dump_json(by_alias=True, exclude_none=True, indent=2))
        run.progress.write_bytes(b"")
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "snowmelt_trainer",
            "--config",
            config,
            "--progress-file",
            run.progress,
        ]
        with run.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def snapshots(self) -> Iterator[Progress | None]:
        """What the trainer says, as it says it, and None at each moment without news; ends when the process does, or
        a while after its last word."""
        with self._run.progress.open(encoding="utf-8") as lines:
            unfinished = ""
            ended, until = False, math.inf
            while not ended:
                ended = self._process.poll() is not None or time.monotonic() > until  # before the last lines are read
                for line in lines.read().splitlines(keepends=True):
                    unfinished += line
                    if unfinished.endswith("\n"):
                        progress, unfinished = Progress.model_validate_json(unfinished), ""
                        if progress.final is not None:
                            until = time.monotonic() + FAREWELL_SECONDS
                        yield progress
                yield None
                if not ended:
                    time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ends the trainer and all that it started; it keeps its checkpoints. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._run.log.read_text(errors="replace").splitlines()[-LAST_WORDS:])
