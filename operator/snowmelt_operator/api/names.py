"""Names of Kubernetes objects."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from snowmelt_trainer.contract.text import Form

DnsName = Annotated[
    str,
    StringConstraints(max_length=253),
    Form(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", "a name of lower-case letters, digits, '-' and '.'"),
]
