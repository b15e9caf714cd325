"""Jobs, runs and observations for the tests of the operator's core."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from snowmelt_operator.api.conditions import Condition, ConditionType
from snowmelt_operator.api.run import Run, RunPhase
from snowmelt_operator.api.stored import StoredJob, read_job
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.decide import Decision, Observed
from snowmelt_operator.decide.state import find_condition
from snowmelt_trainer.contract.progress import FinalRecord
from snowmelt_trainer.contract.reasons import Outcome, Reason

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
UID = "0c0ffee0-0000-4000-8000-000000000001"


def document(
    *, status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A FineTuneJob as the API server stores it."""
    needed = {
        "backbone": {"architecture": "resnet18"},
        "data": {"train": {"uri": "pvc://shoes/train"}},
        "output": {"uri": "pvc://models/shoes"},
    }
    about = {"name": "shoes", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "1"}
    return {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": about | (metadata or {}),
        "spec": needed | spec,
        "status": status or {},
    }


def job(**given: Any) -> FineTuneJob:
    read = read_job(document(**given))
    assert isinstance(read, FineTuneJob), read
    return read


def run(phase: RunPhase = RunPhase.RUNNING, *, attempt: int = 1, **given: Any) -> Run:
    return Run(name=f"shoes-a{attempt}", attempt=attempt, phase=phase, **given)


def attempts(current: int = 1, *, failed: int = 0, active_for: float | None = 0.0, before: int = 0) -> dict[str, Any]:
    """status.attempts; `active_for`: seconds since the current one was launched, None when it has ended."""
    started = {} if active_for is None else {"startedAt": (NOW - timedelta(seconds=active_for)).isoformat()}
    return {"current": current, "failed": failed, "activeSeconds": before, **started}


def under_way(*, active_for: float = 0.0, failed: int = 0, before: int = 0, **given: Any) -> FineTuneJob:
    """A job whose first attempt was launched."""
    status = {"attempts": attempts(active_for=active_for, failed=failed, before=before)} | given.pop("status", {})
    return job(status=status, **given)


def final(outcome: Outcome, reason: Reason, *, attempt: int = 1) -> dict[str, Any]:
    """status.trainer with the trainer's last word."""
    record = FinalRecord(outcome=outcome, reason=reason, message="so it ended")
    return {"trainer": {"attempt": attempt, "sequence": 9, "final": record.to_json_dict()}}


def seen(stored: StoredJob, run: Run | None = None, **given: Any) -> Observed:
    return Observed(job=stored, run=run, now=given.pop("now", NOW), **given)


def after(observed: Observed, decision: Decision) -> Observed:
    """The same world after the decision's status was written."""
    if decision.status is None:
        return observed
    stored = observed.job
    status = decision.status.onto(stored.status)
    changed = (
        stored.model_copy(update={"status": status})
        if isinstance(stored, FineTuneJob)
        else replace(stored, status=status)
    )
    return replace(observed, job=changed)


def condition(decision: Decision, type_: ConditionType) -> Condition:
    assert decision.status is not None
    found = find_condition(decision.status.conditions, type_)
    assert found is not None, f"nothing is said of {type_}"
    return found
