"""The one exception that ends a run with a reason instead of a stack trace, and what is said of others."""

from __future__ import annotations

from snowmelt_trainer.contract.reasons import Reason


def first_line(error: BaseException, *, silent: str = "") -> str:
    """Of what an error says; of one that says nothing `silent`, or else the name of its type."""
    return (str(error).strip() or silent or type(error).__name__).splitlines()[0]


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
