"""From whatever was raised, in whichever process, to a reason and a sentence for people. The trace goes to the log."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray.exceptions
import torch
from ray.train import ControllerError, UserCallback, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.worker_group.poll import _is_preempted_actor

from snowmelt_trainer.contract.progress import FinalRecord
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.errors import RunError, first_line

MAX_MESSAGE = 1000
_SAVE_MEMORY = "lower spec.optimization.batchSize or spec.data.imageSize, or give the workers more"
_BY_ERRNO = {
    errno.ENOSPC: (Reason.STORAGE_FULL, "no space left: free some, or enlarge the volume"),
    errno.EDQUOT: (Reason.STORAGE_FULL, "the quota is used up: free some space, or raise it"),
    errno.EACCES: (Reason.OUTPUT_UNWRITABLE, "permission denied: check the folder's owner and mode"),
    errno.EROFS: (Reason.OUTPUT_UNWRITABLE, "the file system is read-only: mount it for writing"),
}


class UnforeseenError(Exception):
    """What another process raised, as text: its own type may not be importable here, and its trace does not travel."""


@contextmanager
def sendable_errors() -> Iterator[None]:
    """Lets only RunError and UnforeseenError out of a worker. A RunError ends the run; after the other, Ray Train
    starts the workers anew.

    Raises:
        RunError: for what a worker can name: also OutOfMemory and the operating system's refusals.
        UnforeseenError: for everything else.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        reason, message = explain(error)
        if reason is Reason.INTERNAL_ERROR:
            raise UnforeseenError(message) from error
        raise RunError(reason, message) from error


def explain(error: BaseException) -> tuple[Reason, str]:
    """The reason and the message that a failure is reported with; the message never holds a stack trace."""
    match error:
        case RunError():
            reason, message = error.reason, error.message
        case ControllerError():
            reason, message = explain(error.controller_failure)
        case WorkerGroupError():
            reason, message = _explain_workers(error.worker_failures)
        case torch.OutOfMemoryError() | MemoryError() | ray.exceptions.OutOfMemoryError():
            reason = Reason.GPU_OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else Reason.OUT_OF_MEMORY
            whose = "accelerator" if reason is Reason.GPU_OUT_OF_MEMORY else "host"
            message = f"the {whose}'s memory is used up: {_SAVE_MEMORY}"
        case OSError() if error.errno in _BY_ERRNO:
            reason, remedy = _BY_ERRNO[error.errno]
            message = f"{error.filename or 'storage'}: {remedy}"
        case UnforeseenError():
            reason, message = Reason.INTERNAL_ERROR, str(error)
        case _:
            said = first_line(error, silent="no further message")
            reason, message = Reason.INTERNAL_ERROR, f"{type(error).__name__} in {_place(error)}: {said}"
    return reason, message[:MAX_MESSAGE]


def _explain_workers(failures: dict[int, Exception]) -> tuple[Reason, str]:
    """Of several workers' failures the one that tells most: a worker that could name its failure, then a dead one; a
    worker's death makes the others fail in their collective operations, which tells nothing."""
    causes = {
        rank: failure.health_check_failure if isinstance(failure, WorkerHealthCheckFailedError) else failure
        for rank, failure in sorted(failures.items())
    }
    explained = {rank: explain(cause) for rank, cause in causes.items()}
    for reason, message in explained.values():
        if reason is not Reason.INTERNAL_ERROR:
            return reason, message
    dead = [str(rank) for rank, cause in causes.items() if isinstance(cause, ray.exceptions.RayActorError)]
    if dead:
        return (
            Reason.WORKER_LOST,
            f"worker {', '.join(dead)} died, as its predecessors had: see whether its node or memory limit is to blame",
        )
    rank, (reason, message) = next(iter(explained.items()))
    return reason, f"worker {rank}: {message}"


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "snowmelt_trainer" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} ({ours[-1].name})" if ours else "an unknown place"


def failed(reason: Reason, message: str) -> FinalRecord:
    """The final record of a run that failed."""
    return FinalRecord(outcome=Outcome.FAILED, reason=reason, message=message)


class StopAtNamedFailure(UserCallback):
    """Ray Train starts its workers anew after any exception; after a RunError that would only fail again, so this ends
    the run at once."""

    def after_exception(self, run_context: TrainRunContext, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raises the first RunError among the workers' exceptions, which the controller passes on to the driver as a
        ControllerError."""
        for _, error in sorted(worker_exceptions.items()):
            if isinstance(error, RunError):
                raise error


class StopWithoutProgress(UserCallback):
    """Ends the run when its workers fail again and again without a checkpoint in between. A failure after progress
    starts the count anew: on nodes that come and go, a long run may lose any number of workers in its life."""

    def __init__(self, checkpoints: Callable[[], int], *, limit: int) -> None:
        self._checkpoints = checkpoints
        self._limit = limit
        self._failures, self._seen = 0, 0

    def after_exception(self, run_context: TrainRunContext, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raises a RunError at one failure more than `limit`; a worker whose node was taken away as announced is
        none."""
        if any(_is_preempted_actor(error) for error in worker_exceptions.values()):
            return
        seen = self._checkpoints()
        self._failures = 1 if seen > self._seen else self._failures + 1
        self._seen = seen
        if self._failures > self._limit:
            raise RunError(*_explain_workers(worker_exceptions))
