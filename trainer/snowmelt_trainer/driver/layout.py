"""What lies where under output.uri."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.contract.uri import to_path

MODEL, MODEL_CONFIG, METRICS, HISTORY, RUN, RECORD = (
    "model.safetensors",
    "model.json",
    "metrics.json",
    "history.jsonl",
    "run.json",
    "record.json",
)
PUBLISHED = (MODEL, MODEL_CONFIG, METRICS, HISTORY, RUN, RECORD)
"""The files of the newest successful run; the record, which is written last, vouches for the others."""


@dataclass(frozen=True)
class Layout:
    """The folders of one run."""

    root: Path
    """output.uri: the newest successful run's model."""
    uid: str

    @classmethod
    def of(cls, config: RunConfig) -> Layout:
        return cls(to_path(config.output.uri, config.volumes_root), config.job.uid)

    @property
    def run(self) -> Path:
        """What belongs to this run alone."""
        return self.root / ".snowmelt" / self.uid

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def record(self) -> Path:
        """The run's final record, whether it succeeded or failed."""
        return self.run / RECORD

    def previous(self, uid: str) -> Path:
        """Where the model of an earlier run is moved when another run publishes over it."""
        return self.root / ".snowmelt" / uid / "previous"


def fingerprint(config: RunConfig) -> str:
    """A digest of all that decides what is trained; not of who asks for it, of the attempt, or of the number of
    workers."""
    document = config.model_dump(mode="json", by_alias=True, include={"backbone", "data", "unfreezing", "optimization"})
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
