"""Kubernetes quantities: 4, "500m", 16Gi (k8s.io/apimachinery/pkg/api/resource)."""

from __future__ import annotations

import re
from decimal import Decimal

PATTERN = r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
_SUFFIXES = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(1000)}
_SUFFIXES |= {letter: Decimal(1000) ** (power + 2) for power, letter in enumerate("MGTPE")}
_SUFFIXES |= {f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")}


def parse_quantity(text: str | int) -> Decimal:
    """The amount, in the resource's own unit (cores, bytes, devices).

    Raises:
        ValueError: for something that is not a quantity, or is negative.
    """
    text = str(text)
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a quantity: write for instance 4, 500m or 16Gi")
    number = re.match(r"^[0-9.]+([eE][+-]?[0-9]+)?", text)
    assert number is not None  # the pattern begins with digits
    return Decimal(number[0]) * _SUFFIXES[text[number.end() :]]
