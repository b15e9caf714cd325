"""kopf is begun as it is in a pod."""

from __future__ import annotations

import asyncio
import getpass

import kopf
import pytest

from snowmelt_operator.handlers import build_settings
from snowmelt_operator.watches import IDENTITY


async def test_kopf_begins_where_the_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nameless)
    tasks = await kopf.spawn_tasks(
        registry=kopf.OperatorRegistry(), settings=build_settings(), clusterwide=True, identity=IDENTITY
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
