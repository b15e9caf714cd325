"""The one exception that ends a run with a reason instead of a stack trace."""

from __future__ import annotations

from snowmelt_trainer.contract.reasons import Reason


class RunError(Exception):
    """The run cannot go on, for a reason that its owner can act on.

    `message` is read by people: it says what is wrong, where (field, file), and what to do. Whatever else is raised
    is a fault of ours, and is reported as InternalError.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # both in args, so that the error survives pickling between Ray processes
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
