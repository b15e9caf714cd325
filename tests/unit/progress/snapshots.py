"""Progress and FineTuneJobs for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.cluster import ClusterConflictError, ClusterUnavailableError
from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus, Result, StageStatus
from snowmelt_trainer.contract.reasons import Outcome, Reason

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def snapshot(
    sequence: int = 0, *, attempt: int = 1, stage: int | None = 1, final: bool = False, **more: Any
) -> Progress:
    return Progress(
        attempt=attempt,
        sequence=sequence,
        time=NOON,
        stage=stage_status(stage) if stage is not None else None,
        progress=more.pop("progress", ProgressStatus(percent=min(100, sequence))),
        final=succeeded() if final else None,
        **more,
    )


def stage_status(index: int) -> StageStatus:
    return StageStatus(
        index=index,
        of=5,
        name=f"layer{5 - index}",
        unfrozen=("fc",),
        trainable_parameters=5130,
        total_parameters=11181642,
    )


def succeeded() -> FinalRecord:
    result = Result(model_uri="pvc://models/shoes", sha256="0" * 64, test={"accuracy": "0.962"})
    return FinalRecord(outcome=Outcome.SUCCEEDED, reason=Reason.TARGET_MET, message="met", result=result)


def job_document(status: dict[str, Any] | None = None, uid: str = "uid-1") -> dict[str, Any]:
    return {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "shoes", "namespace": "team", "uid": uid},
        "spec": {
            "backbone": {"architecture": "resnet18"},
            "data": {"train": {"uri": "pvc://shoes/train"}},
            "output": {"uri": "pvc://models/shoes"},
        },
        "status": status or {},
    }


class ScriptedStore:
    """Where faults must be scripted: FineTuneJobs in memory behind the writer's two calls."""

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = job_document({"attempts": {"current": 1}})
        self.written: list[dict[str, Any]] = []
        self.away = False
        self.conflicts = 0
        """How many of the next writes find the job changed."""

    async def get_job(self, namespace: str, name: str) -> StoredJob | None:
        self._reach()
        return read_job(self.document) if self.document is not None else None

    async def apply_status(self, job: ObjectMeta, status: dict[str, Any], *, field_manager: str) -> None:
        self._reach()
        if self.conflicts:
            self.conflicts -= 1
            raise ClusterConflictError("the object has been modified", status=409, reason="Conflict")
        assert self.document is not None
        assert job.uid == self.document["metadata"]["uid"]
        self.written.append(status)
        self.document = self.document | {"status": {"attempts": self.document["status"]["attempts"]} | status}

    def _reach(self) -> None:
        if self.away:
            raise ClusterUnavailableError("the API server is down")
