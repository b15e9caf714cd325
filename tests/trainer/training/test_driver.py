"""The driver's pure parts: what a failure is called, in which order snapshots go out."""

from __future__ import annotations

import errno
import io
import json
import pickle
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import ray.exceptions
import torch
from ray.train import ControllerError, WorkerGroupError

from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.failures import (
    StopAtNamedFailure,
    StopWithoutProgress,
    UnforeseenError,
    explain,
    sendable_errors,
)
from snowmelt_trainer.driver.launch import connected
from snowmelt_trainer.errors import RunError
from tests.trainer.training.conftest import Configure

CORRUPT = RunError(Reason.CORRUPT_IMAGE, "train/a/1.png: cannot be decoded")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CORRUPT, Reason.CORRUPT_IMAGE),
        (ControllerError(CORRUPT), Reason.CORRUPT_IMAGE),
        (WorkerGroupError("trace", {0: RuntimeError("peer closed"), 1: CORRUPT}), Reason.CORRUPT_IMAGE),
        (WorkerGroupError("trace", {0: UnforeseenError("x"), 1: ray.exceptions.ActorDiedError()}), Reason.WORKER_LOST),
        (WorkerGroupError("trace", {0: ray.exceptions.OutOfMemoryError("killed")}), Reason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Reason.GPU_OUT_OF_MEMORY),
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device", "/models/x"), Reason.STORAGE_FULL),
        (PermissionError(errno.EACCES, "Permission denied", "/models/x"), Reason.OUTPUT_UNWRITABLE),
        (WorkerGroupError("trace", {2: UnforeseenError("KeyError in a.py:1 (f): 'x'")}), Reason.INTERNAL_ERROR),
        (ZeroDivisionError("division by zero"), Reason.INTERNAL_ERROR),
    ],
)
def test_each_failure_has_a_reason_and_a_message_without_a_trace(error: Exception, reason: Reason) -> None:
    found, message = explain(error)
    assert found is reason
    assert message
    assert "Traceback" not in message
    assert "\n" not in message


def test_an_unforeseen_failure_names_its_type_and_place() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    message = explain(caught.value)[1]
    assert "JSONDecodeError in " in message
    assert re.search(r"\w+\.py:\d+", message)


def test_a_worker_lets_out_nothing_that_cannot_travel() -> None:
    class LocalError(Exception):  # cannot be pickled
        pass

    with pytest.raises(UnforeseenError, match=r"LocalError in test_driver\.py"), sendable_errors():
        raise LocalError("oh")
    with pytest.raises(RunError) as caught, sendable_errors():
        raise OSError(errno.ENOSPC, "full", "/models")
    assert pickle.loads(pickle.dumps(caught.value)).reason is Reason.STORAGE_FULL


def test_a_named_failure_ends_the_run_at_once_and_others_do_not() -> None:
    with pytest.raises(RunError):
        StopAtNamedFailure().after_exception(None, {0: RuntimeError("peer closed"), 1: CORRUPT})
    StopAtNamedFailure().after_exception(None, {0: RuntimeError("peer closed")})


def starting(failures: int, started: list[str]) -> Callable[..., None]:
    """Stands for ray.init on a machine too busy to start Ray in its 30 s, so many times."""

    def init(address: str, **_: object) -> None:
        started.append(address)
        if len(started) <= failures:
            raise Exception("The current node timed out during startup.\nFor instance …")

    return init


def test_a_ray_that_is_late_is_started_again(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(ray, "init", starting(2, started))
    with connected(configure()):
        assert started == ["local"] * 3


def test_a_ray_that_never_starts_ends_the_attempt_with_its_words(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", starting(99, []))
    with pytest.raises(RunError) as caught, connected(configure()):
        pass
    assert caught.value.reason is Reason.RAY_UNAVAILABLE
    assert caught.value.message.endswith("says: The current node timed out during startup.")


class Preempted(ray.exceptions.RayActorError):
    """Died because its node was taken away, as announced."""

    def __init__(self) -> None:
        super().__init__(preempted=True)


def test_workers_that_fail_without_a_checkpoint_in_between_end_the_run() -> None:
    watch = StopWithoutProgress(lambda: 5, limit=2)
    for _ in range(2):
        watch.after_exception(None, {0: UnforeseenError("peer closed"), 1: ray.exceptions.ActorDiedError()})
    with pytest.raises(RunError) as caught:
        watch.after_exception(None, {0: UnforeseenError("peer closed"), 1: ray.exceptions.ActorDiedError()})
    assert caught.value.reason is Reason.WORKER_LOST


def test_a_long_run_may_lose_any_number_of_workers_while_it_gets_on() -> None:
    checkpoints = iter(range(1, 100))
    watch = StopWithoutProgress(lambda: next(checkpoints), limit=1)
    for _ in range(50):
        watch.after_exception(None, {0: ray.exceptions.ActorDiedError()})


def test_a_node_that_was_taken_away_as_announced_is_no_failure() -> None:
    watch = StopWithoutProgress(lambda: 0, limit=0)
    for _ in range(5):
        watch.after_exception(None, {0: UnforeseenError("peer closed"), 1: Preempted()})


def snapshot(percent: int) -> Progress:
    return Progress(attempt=1, sequence=0, time=datetime.now(UTC), progress=ProgressStatus(percent=percent))


def test_snapshots_are_numbered_and_never_go_back() -> None:
    sent: list[Progress] = []
    file = io.StringIO()
    announcer = Announcer(3, sent.append, file, first=7)
    announcer.started()
    for percent in (10, 40, 20, 50):  # 20: a new group of workers resumed from an earlier checkpoint
        announcer(snapshot(percent))
    announcer.ended(FinalRecord(outcome=Outcome.SUCCEEDED, reason=Reason.STAGES_COMPLETED, message="done"))
    assert [progress.sequence for progress in sent] == [7, 8, 9, 10, 11, 12]
    assert [progress.progress.percent for progress in sent] == [0, 10, 40, 40, 50, 100]
    assert {progress.attempt for progress in sent} == {3}
    assert [Progress.model_validate_json(line) for line in file.getvalue().splitlines()] == sent


def test_a_file_that_cannot_be_written_costs_progress_and_nothing_else() -> None:
    sent: list[Progress] = []
    with Path("/dev/full").open("w") as file:
        announcer = Announcer(1, sent.append, file)
        announcer(snapshot(10))
        announcer(snapshot(20))
    assert [progress.progress.percent for progress in sent] == [10, 20]


def test_a_driver_started_anew_in_the_same_attempt_goes_on_above_the_numbers_of_the_one_before() -> None:
    before, after = list[Progress](), list[Progress]()
    first = Announcer(1, before.append)
    first.started()
    # A later start is later by the clock; a driver takes seconds to come up, and says something a few times a second.
    time.sleep(0.01)
    Announcer(1, after.append).started()
    assert after[0].sequence > before[-1].sequence


def test_a_failed_run_ends_where_it_was() -> None:
    sent: list[Progress] = []
    announcer = Announcer(1, sent.append)
    announcer(snapshot(30))
    announcer.ended(FinalRecord(outcome=Outcome.FAILED, reason=Reason.DIVERGED, message="NaN"))
    assert sent[-1].progress.percent == 30
    assert sent[-1].final is not None
