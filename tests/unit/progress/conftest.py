"""A progress endpoint on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from snowmelt_operator.progress.endpoint import Limits, ProgressEndpoint
from snowmelt_operator.progress.ratelimit import RateLimit
from snowmelt_operator.progress.tokens import SigningKey
from snowmelt_operator.progress.writer import ProgressWriter
from tests.unit.progress.listening import Listening
from tests.unit.progress.snapshots import NOON, ScriptedStore

LIMITS = Limits(body_seconds=0.3, idle_seconds=0.5, write_seconds=1.0, concurrent=64)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def listening(store: ScriptedStore) -> AsyncIterator[Listening]:
    key = SigningKey(b"k" * 32)
    writer = ProgressWriter(store, pace=0.05, now=lambda: NOON)
    codes: list[int] = []
    rate = RateLimit(per_second=1000, burst=1000)
    endpoint = ProgressEndpoint(key, writer, limits=LIMITS, rate=rate, answered=codes.append, now=lambda: NOON)
    runner = await endpoint.start("127.0.0.1", 0)
    host, port = runner.addresses[0][:2]
    token = key.issue(uid="uid-1", namespace="team", name="shoes", attempt=1, expires_at=NOON + timedelta(hours=1))
    yield Listening(host, port, key, token, codes)
    await runner.cleanup()
    await writer.aclose()
