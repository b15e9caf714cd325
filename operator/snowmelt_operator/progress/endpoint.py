"""The HTTP endpoint to which the trainers' drivers post their progress. It runs on every replica.

`POST /v1/namespaces/{namespace}/finetunejobs/{name}/progress` with a bearer token and a Progress as JSON. Every answer
is a metav1.Status, its message for people. What a stranger sends is bounded in size and in time, and is not read before
the token was checked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from snowmelt_operator.progress.ratelimit import RateLimit
from snowmelt_operator.progress.refusal import Refusal
from snowmelt_operator.progress.tokens import Claims, InvalidTokenError, SigningKey
from snowmelt_trainer.contract.progress import MAX_PROGRESS_BYTES, Progress

ROUTE = "/v1/namespaces/{namespace}/finetunejobs/{name}/progress"
RETRY_AFTER = 5

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Writer(Protocol):
    """What takes the snapshots; `snowmelt_operator.progress.writer.ProgressWriter`."""

    async def submit(self, namespace: str, name: str, uid: str, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What one sender may take of the operator. Times in seconds."""

    body_seconds: float = 10.0
    """Longest time for a body to arrive."""
    idle_seconds: float = 30.0
    """Longest time for a request's head to arrive, and for a connection to lie idle."""
    write_seconds: float = 8.0
    """Longest time for the API server's part."""
    concurrent: int = 256
    """Requests in progress at once."""


class ProgressEndpoint:
    """The endpoint as an aiohttp application."""

    def __init__(
        self,
        key: SigningKey,
        writer: Writer,
        *,
        limits: Limits | None = None,
        rate: RateLimit | None = None,
        answered: Callable[[int], None] = lambda _code: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`answered` is told the code of every answer."""
        self._key = key
        self._writer = writer
        self._limits = limits or Limits()
        self._rate = rate or RateLimit()
        self._answered = answered
        self._now = now
        self._in_progress = 0

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer], client_max_size=MAX_PROGRESS_BYTES)
        application.router.add_post(ROUTE, self._progress)
        return application

    async def start(self, host: str, port: int, *, ssl_context: ssl.SSLContext | None = None) -> web.AppRunner:
        """Listen; the runner's `addresses` say where (port 0 takes a free one), its `cleanup()` ends it.

        Raises:
            OSError: the address cannot be listened on.
        """
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            auto_decompress=False,
            handle_signals=False,
            keepalive_timeout=self._limits.idle_seconds,
            lingering_time=1.0,
            shutdown_timeout=self._limits.write_seconds,
        )
        await runner.setup()
        await web.TCPSite(runner, host, port, ssl_context=ssl_context).start()
        return runner

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn whatever happens into an answer."""
        try:
            response: web.StreamResponse = await self._bounded(request, handler)
        except Refusal as refusal:
            response = _refusal_response(refusal)
        except web.HTTPException as error:
            response = _refusal_response(Refusal(error.status, f"{error.reason}: post to {ROUTE}"))
        except Exception:
            log.exception("a progress request failed")
            response = _refusal_response(Refusal(500, "the operator failed on this request; its log says where"))
        self._answered(response.status)
        return response

    async def _bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._in_progress >= self._limits.concurrent:
            raise Refusal(503, "the operator is busy: send again", retry_after=RETRY_AFTER)
        self._in_progress += 1
        try:
            return await handler(request)
        finally:
            self._in_progress -= 1

    async def _progress(self, request: web.Request) -> web.Response:
        claims = self._authenticate(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        if (namespace, name) != (claims.namespace, claims.name):
            raise Refusal(
                403, f"this token is for FineTuneJob {claims.namespace}/{claims.name}, not {namespace}/{name}"
            )
        wait = self._rate.seconds_to_wait(claims.uid, time.monotonic())
        if wait > 0:
            raise Refusal(429, "progress comes too often: one report in 5 s is enough", retry_after=math.ceil(wait))
        progress = parse_progress(await self._body(request))
        if progress.attempt != claims.attempt:
            raise Refusal(
                403, f"this token is for attempt {claims.attempt}, and the body speaks of attempt {progress.attempt}"
            )
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                await self._writer.submit(namespace, name, claims.uid, progress)
        except TimeoutError:
            raise Refusal(503, "the API server is slow now: send again", retry_after=RETRY_AFTER) from None
        return web.json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _authenticate(self, request: web.Request) -> Claims:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(401, "a bearer token is needed: Authorization: Bearer <the token of this attempt>")
        try:
            return self._key.verify(token.strip(), now=self._now())
        except InvalidTokenError as error:
            raise Refusal(401, str(error)) from error

    async def _body(self, request: web.Request) -> bytes:
        if (
            request.content_type != "application/json"
            or request.headers.get("Content-Encoding", "identity") != "identity"
        ):
            raise Refusal(415, "send the progress as Content-Type: application/json, not compressed")
        if (request.content_length or 0) > MAX_PROGRESS_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_PROGRESS_BYTES:
                        raise _too_large()
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {self._limits.body_seconds:g} s") from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise Refusal(400, "the body broke off or is not valid HTTP") from error
        return bytes(body)


def parse_progress(body: bytes) -> Progress:
    """A Progress from JSON.

    Raises:
        Refusal: 400, naming the first fields that are wrong.
    """
    try:
        return Progress.model_validate_json(body, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        shown = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}"[:200] for p in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise Refusal(400, f"this is not a Progress of this version: {shown}{more}") from error


def _too_large() -> Refusal:
    return Refusal(413, f"a progress report has at most {MAX_PROGRESS_BYTES} bytes")


def _refusal_response(refusal: Refusal) -> web.Response:
    response = web.json_response(refusal.to_status(), status=refusal.code)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if refusal.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.code in (408, 413):
        response.force_close()
    return response
