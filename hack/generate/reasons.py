"""docs/reasons.md: every reason that a condition or an Event of a FineTuneJob can have."""

from __future__ import annotations

from hack.generate.enumdocs import member_docs
from snowmelt_operator.api.reasons import Reason
from snowmelt_trainer.contract.reasons import Reason as TrainerReason

INTRODUCTION = """\
<!-- Generated from api/reasons.py and contract/reasons.py by `make generate`. Do not edit. -->

# Reasons

Each condition of a FineTuneJob, each Event and each row of `status.incidents` has one of these reasons; the message
beside it has the words of whoever saw it: the kubelet, the scheduler, the API server, KubeRay, Ray or the trainer.
`kubectl describe finetunejob NAME` shows them. This list is closed.

What another attempt may cure is retried as often as `spec.backoffLimit` says, from the newest checkpoint, after a delay
of 10 s that doubles up to 6 min while attempts write no new checkpoint. What only a person can change fails the job
after a grace time. Delays and graces are settings of the operator, named below with their prefix `SNOWMELT_`.

With the right to read logs, the operator keeps the end of the log (20 lines, 2 KiB at most) of the container that ended
in `status.incidents`, because KubeRay deletes the pods: let a trainer print nothing that readers of the FineTuneJob may
not see.
"""
REMEDY = "Remedy:"


def cause_and_remedy(text: str) -> tuple[str, str]:
    """The two parts of what is said under a reason; the remedy is empty for what is as it should be."""
    cause, _, remedy = text.partition(REMEDY)
    remedy = remedy.strip()
    return cause.strip(), remedy[:1].upper() + remedy[1:]


def reasons_markdown() -> str:
    """The whole document."""
    retried = {reason.value: "yes" if reason.retryable else "" for reason in TrainerReason}
    trainer = [
        f"| `{value}` | {_cells(text)} | {retried[value]} |" for value, text in member_docs(TrainerReason).items()
    ]
    operator = [f"| `{value}` | {_cells(text)} |" for value, text in member_docs(Reason).items()]
    lines = [
        INTRODUCTION,
        "## From the operator\n",
        "| Reason | Where, and cause | What to do |\n|---|---|---|",
        *operator,
        "\n## From the trainer\n",
        "Reasons of Complete and Failed. Where another attempt can help, it is made.\n",
        "| Reason | Cause | What to do | Retried |\n|---|---|---|---|",
        *trainer,
    ]
    return "\n".join(lines) + "\n"


def _cells(text: str) -> str:
    return " | ".join(cause_and_remedy(text))
