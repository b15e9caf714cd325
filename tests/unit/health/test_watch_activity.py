"""A watch that is opened is heard of, whoever answers; one that cannot be opened too."""

from __future__ import annotations

import aiohttp
import pytest
from kubernetes.aio import client

from snowmelt_operator.connection import kopf_session


async def test_each_request_of_kopf_tells_what_it_asks_for_even_when_nobody_answers() -> None:
    configuration = client.Configuration(host="http://127.0.0.1:1")
    asked: list[str] = []
    info = await kopf_session(configuration, asked.append)
    async with info.aiohttp_session as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get("http://127.0.0.1:1/apis/snowmelt.dev/v1alpha1/finetunejobs?watch=true")
    assert asked == ["finetunejobs"]
