"""Why no pod can be made at all: the API server's words, as KubeRay passes them on. Pure."""

from __future__ import annotations

import re

from snowmelt_operator.api.quantity import PATTERN, parse_quantity
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.diagnosis import Finding

_FORBIDDEN = ("is forbidden", "is invalid", "denied the request")
_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>\S+), requested: (?P<requested>\S+), used: \S+, limited: (?P<limited>\S+)"
)
_NOT_COUNTABLE = "failed quota:"
"""The quota counts something that the pod does not say."""


def refusal(message: str) -> Finding | None:
    """What the API server's refusal to make a pod means; None where it merely failed and may take it the next time."""
    if not any(words in message for words in _FORBIDDEN):
        return None
    words = " ".join(message.split())
    if (quota := _QUOTA.search(words)) is not None:
        return Finding(Reason.QUOTA_EXCEEDED, words, _asks_for_more_than_all(quota["requested"], quota["limited"]))
    if _NOT_COUNTABLE in words:
        return Finding(Reason.QUOTA_EXCEEDED, words, is_permanent=True)
    return Finding(Reason.POD_REFUSED, words, is_permanent=True)


def _asks_for_more_than_all(requested: str, limited: str) -> bool:
    """Whether the request alone is above the quota: `requests.cpu=10,pods=1` against `requests.cpu=4,pods=9`."""
    asked, hard = _amounts(requested), _amounts(limited)
    return any(
        resource in hard and parse_quantity(asked[resource]) > parse_quantity(hard[resource]) for resource in asked
    )


def _amounts(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {resource: amount for resource, _, amount in pairs if re.fullmatch(PATTERN, amount)}
