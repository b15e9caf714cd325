"""Publishing: the best checkpoint becomes the model that lies under output.uri."""

from __future__ import annotations

import hashlib
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snowmelt_trainer.contract.progress import FinalRecord, Result
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.driver import layout
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.record import as_json, keep_record
from snowmelt_trainer.driver.trained import Trained
from snowmelt_trainer.training.checkpoint import CheckpointStore, best_is_gone
from snowmelt_trainer.training.state import deciding_metric
from snowmelt_trainer.training.storage import replace_file, storage_errors, sync_directory


def publish(config: RunConfig, trained: Trained) -> FinalRecord:
    """Writes the model and all that belongs to it, and gives the record of success.

    Each file is written beside and renamed, the record last; done again after a crash it ends the same. The files of
    another run that lie there are first copied to `.snowmelt/<its uid>/previous`.

    Raises:
        RunError: StorageFull, OutputUnwritable.
    """
    where = Layout.of(config)
    model = CheckpointStore(where.checkpoints).read_model(trained.checkpoint)
    if model is None:
        raise best_is_gone(where.checkpoints / trained.checkpoint)
    record = _record(config, trained, hashlib.sha256(model).hexdigest())
    files = {
        layout.MODEL: model,
        layout.MODEL_CONFIG: as_json(trained.model),
        layout.METRICS: as_json(_metrics(trained)),
        layout.HISTORY: "".join(
            epoch.model_dump_json(by_alias=True, exclude_none=True) + "\n" for epoch in trained.state.history
        ).encode(),
        layout.RUN: as_json(_resolved(config, trained).to_json_dict()),
        layout.RECORD: as_json(record.to_json_dict()),
    }
    with storage_errors(where.root):
        _keep_previous(where)
        for name, data in files.items():
            replace_file(where.root / name, data)
        keep_record(where, record)
    return record


def _keep_previous(where: Layout) -> None:
    uid = _owner(where.root / layout.RUN)
    if uid is None or uid == where.uid:
        return
    kept = where.previous(uid)
    beside = kept.with_name(".previous.writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in layout.PUBLISHED:
        if (where.root / name).exists():
            shutil.copy2(where.root / name, beside / name)
    shutil.rmtree(kept, ignore_errors=True)
    beside.rename(kept)
    sync_directory(kept.parent)


def _owner(run_file: Path) -> str | None:
    """The uid of the run whose files lie there; None where there is none, or no readable one."""
    try:
        return RunConfig.model_validate_json(run_file.read_bytes()).job.uid
    except (FileNotFoundError, ValueError):
        return None


def _record(config: RunConfig, trained: Trained, sha256: str) -> FinalRecord:
    return FinalRecord(
        outcome=Outcome.SUCCEEDED,
        reason=trained.reason,
        message=_sentence(config, trained),
        result=Result(
            model_uri=config.output.uri,
            sha256=sha256,
            report_uri=f"{config.output.uri.rstrip('/')}/{layout.METRICS}",
            validation=trained.validation,
            test=trained.test,
        ),
    )


def _sentence(config: RunConfig, trained: Trained) -> str:
    metric, target, rows = deciding_metric(config.unfreezing.target).value, config.unfreezing.target, trained.state.rows
    stages = "1 stage" if len(rows) == 1 else f"{len(rows)} stages"
    measured = f"validation {metric} {trained.validation[metric]} after {stages} ({rows[-1].name})"
    if target is None:
        return f"all stages ran: {measured}"
    wanted = f"at most {target.at_most}" if target.at_most is not None else f"at least {target.at_least}"
    how = "target met" if trained.reason is Reason.TARGET_MET else "target missed, though all stages ran"
    return f"{how}: {measured}, wanted {wanted}"


def _metrics(trained: Trained) -> dict[str, Any]:
    best = trained.state.best
    return {
        "reason": trained.reason,
        "validation": trained.validation,
        "test": trained.test,
        "best": None if best is None else {"stage": best.stage, "epoch": best.epoch},
        "stages": [row.to_json_dict() for row in trained.state.rows],
        "workers": trained.workers,
        "versions": {name: version(name) for name in ("snowmelt", "torch", "torchvision", "ray")}
        | {"python": platform.python_version()},
    }


def _resolved(config: RunConfig, trained: Trained) -> RunConfig:
    """The configuration with what Auto came to mean. Who listened to the progress is nobody's business later."""
    optimization = config.optimization.model_copy(update={"precision": trained.precision})
    data = config.data.model_copy(update={"augmentation": trained.augmentation})
    return config.model_copy(update={"optimization": optimization, "data": data, "progress": None})
