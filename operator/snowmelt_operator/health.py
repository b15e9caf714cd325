"""Honest health: /healthz, /readyz and /metrics, answered by a thread of their own so that a stuck event loop is seen.

/healthz fails when only a restart helps: the event loop stands still, a worker of the queue died, or a watch
was not opened anew for longer than the API server ever leaves one open. /readyz fails when this replica cannot do its
work now.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
CLIENT_SECONDS = 5.0
"""Longest time for a client to send its request."""
MAX_CLIENTS = 32


@dataclass(frozen=True)
class Limits:
    """From when on something counts as broken. Times in seconds."""

    loop_lag: float = 10.0
    watch_silence: float = 900.0
    """The operator asks for watches of 5 minutes and then opens them anew: one that was not has died silently."""


@dataclass
class Vitals:
    """Signs of life, written by the event loop and read by the health server's threads: one assignment each, no lock.

    Moments are values of `time.monotonic`. A part that has nothing to say (a standby watches nothing) leaves None.
    """

    loop_beat: float | None = None
    """When the event loop last ran on time."""
    watches: dict[str, float] = field(default_factory=dict)
    """When each watch was last opened, or tried to be, by plural."""
    api_answered: float | None = None
    """When the API server last answered a request."""
    api_failed: float | None = None
    """When a request to it last failed."""
    workers_wanted: int = 0
    workers_alive: int = 0
    listed: frozenset[str] = frozenset()
    """Kinds that were listed at least once."""
    to_list: frozenset[str] = frozenset()
    """Kinds that must have been listed before this replica is ready."""
    key_loaded: bool = False

    async def beat(self) -> None:
        """Keep telling that the event loop runs; cancel it to end it."""
        while True:
            self.loop_beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)


def liveness(vitals: Vitals, now: float, limits: Limits) -> tuple[str, ...]:
    """Why the process should be restarted; empty when it should not."""
    problems = []
    lag = 0.0 if vitals.loop_beat is None else now - vitals.loop_beat - BEAT_SECONDS
    if lag > limits.loop_lag:
        problems.append(f"the event loop has stood still for {lag:.0f} s")
    if vitals.workers_alive < vitals.workers_wanted:
        problems.append(f"{vitals.workers_wanted - vitals.workers_alive} of {vitals.workers_wanted} workers died")
    for plural, asked in dict(vitals.watches).items():
        if now - asked > limits.watch_silence:
            problems.append(f"the watch of {plural} was last opened {now - asked:.0f} s ago")
    return tuple(problems)


def readiness(vitals: Vitals, now: float, limits: Limits) -> tuple[str, ...]:
    """Why this replica cannot work now; empty when it can."""
    problems = list(liveness(vitals, now, limits))
    if vitals.loop_beat is None:
        problems.append("the event loop has not started")
    if not vitals.key_loaded:
        problems.append("the key that signs progress tokens is not loaded")
    if missing := vitals.to_list - vitals.listed:
        problems.append(f"not listed yet: {', '.join(sorted(missing))}")
    answered, failed = vitals.api_answered, vitals.api_failed
    if answered is None:
        problems.append("the API server has not answered yet")
    elif failed is not None and failed > answered:
        problems.append("the API server could not be reached at the newest try")
    return tuple(problems)


@dataclass
class HealthServer:
    """Serves `vitals` and `metrics` over HTTP until `stop`.

    Raises:
        OSError: from `start`, when the address cannot be listened on.
    """

    vitals: Vitals
    metrics: Callable[[], bytes]
    limits: Limits = field(default_factory=Limits)
    _server: ThreadingHTTPServer | None = None

    def start(self, host: str, port: int) -> int:
        """Listen, and return the port (0 takes a free one)."""
        self._server = _Server((host, port), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status code, content type and body for a path."""
        now = time.monotonic()
        match path.partition("?")[0]:
            case "/healthz" | "/livez":
                return _verdict(liveness(self.vitals, now, self.limits))
            case "/readyz":
                return _verdict(readiness(self.vitals, now, self.limits))
            case "/metrics":
                return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics()
            case _:
                return 404, "text/plain; charset=utf-8", b"there are /healthz, /readyz and /metrics\n"


def _verdict(problems: tuple[str, ...]) -> tuple[int, str, bytes]:
    body = json.dumps({"ok": not problems, "problems": problems}) + "\n"
    return (503 if problems else 200), "application/json", body.encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._free = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("a health client went away", exc_info=True)


def _handler(health: HealthServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS
        server_version = "snowmelt"
        sys_version = ""

        def do_GET(self) -> None:
            code, content_type, body = health.answer(self.path)
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's signature
            log.debug(format, *args)

    return Handler
