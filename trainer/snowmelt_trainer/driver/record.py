"""The run's final record in its storage, where a later attempt looks for it."""

from __future__ import annotations

import json
from typing import Any

from snowmelt_trainer.contract.progress import FinalRecord
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.training.storage import replace_file, storage_errors


def published_record(where: Layout) -> FinalRecord | None:
    """The record of this very run's success, when an earlier attempt has published it; None otherwise.

    Raises:
        RunError: OutputUnwritable, when the record exists and cannot be read.
    """
    with storage_errors(where.record):
        if not where.record.exists():
            return None
        try:
            record = FinalRecord.model_validate_json(where.record.read_bytes())
        except ValueError:
            return None
    return record if record.outcome is Outcome.SUCCEEDED else None


def keep_record(where: Layout, record: FinalRecord) -> None:
    """Writes the run's final record where a later attempt looks for it.

    Raises:
        RunError: StorageFull, OutputUnwritable.
    """
    with storage_errors(where.run):
        where.run.mkdir(parents=True, exist_ok=True)
        replace_file(where.record, as_json(record.to_json_dict()))


def as_json(document: dict[str, Any]) -> bytes:
    """As files hold it."""
    return (json.dumps(document, indent=2) + "\n").encode()
