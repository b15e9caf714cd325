"""How the tests talk to the endpoint: with an HTTP client, and with bytes of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from snowmelt_operator.progress.tokens import SigningKey
from snowmelt_operator.render.config import progress_url
from tests.unit.progress.snapshots import NOON, snapshot


@dataclass
class Listening:
    host: str
    port: int
    key: SigningKey
    token: str
    codes: list[int]

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return progress_url(self.base, "team", "shoes")

    def token_for(self, *, hours: int = 1, **changes: Any) -> str:
        attempt = {"uid": "uid-1", "namespace": "team", "name": "shoes", "attempt": 1} | changes
        return self.key.issue(**attempt, expires_at=NOON + timedelta(hours=hours))

    async def post(
        self,
        content: bytes | None = None,
        *,
        token: str | None = None,
        url: str | None = None,
        content_type: str = "application/json",
        **headers: str,
    ) -> httpx.Response:
        body = snapshot(1).model_dump_json(by_alias=True).encode() if content is None else content
        bearer = {"Authorization": f"Bearer {token or self.token}"}
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return await client.post(
                url or self.url, content=body, headers=bearer | {"Content-Type": content_type} | headers
            )

    async def raw(self, data: bytes, *, finish: bool = False) -> bytes:
        """Send bytes over a socket and read until the endpoint closes it."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(data)
            await writer.drain()
            if finish:
                writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def head(self, *lines: str, token: str | None = None) -> bytes:
        path = self.url.removeprefix(self.base)
        fixed = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token or self.token}"]
        return "\r\n".join([*fixed, "Content-Type: application/json", *lines, "", ""]).encode()
