"""docs/reasons.md: every reason that a condition or an Event of a FineTuneJob can have."""

from __future__ import annotations

from hack.generate.enumdocs import member_docs
from snowmelt_operator.api.reasons import Reason
from snowmelt_trainer.contract.reasons import Reason as TrainerReason

INTRODUCTION = """\
<!-- Generated from api/reasons.py and contract/reasons.py by `make generate`. Do not edit. -->

# Reasons

Each condition of a FineTuneJob, and each Event, has one of these reasons; the message beside it says what to do.
`kubectl describe finetunejob NAME` shows both. This list is closed.
"""


def reasons_markdown() -> str:
    """The whole document."""
    retried = {reason.value: "yes" if reason.retryable else "" for reason in TrainerReason}
    trainer = [f"| `{value}` | {text} | {retried[value]} |" for value, text in member_docs(TrainerReason).items()]
    operator = [f"| `{value}` | {text} |" for value, text in member_docs(Reason).items()]
    lines = [
        INTRODUCTION,
        "## From the operator\n",
        "| Reason | Where, and meaning |\n|---|---|",
        *operator,
        "\n## From the trainer\n",
        "Reasons of Complete and Failed. Where another attempt can help, it is made.\n",
        "| Reason | Meaning | Retried |\n|---|---|---|",
        *trainer,
    ]
    return "\n".join(lines) + "\n"
