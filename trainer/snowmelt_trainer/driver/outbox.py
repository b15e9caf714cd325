"""Sends the newest Progress to the operator in the background. Training never waits for it and never sees its errors.

Every Progress is a whole snapshot, so only the newest that was not acknowledged is kept: an operator that was away for
an hour costs one request when it is back.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import httpx

from snowmelt_trainer.contract.progress import Progress
from snowmelt_trainer.contract.run import TOKEN_ENV, ProgressEndpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pacing:
    """How often the outbox sends. All times in seconds."""

    pace: float = 5.0
    """Shortest time between two snapshots of the same stage; stage changes and the final record go at once."""
    first_backoff: float = 0.5
    """Longest wait after the first failure; it doubles with each further one."""
    max_backoff: float = 30.0
    closing_backoff: float = 2.0
    """Longest wait between tries once `close` was called."""
    request_timeout: float = 10.0


class Answer(Enum):
    """What the operator's answer means for the sender."""

    ACKNOWLEDGED = "acknowledged"
    RETRY = "retry"
    REFUSED = "refused"
    """This snapshot will never be taken; a later one may."""
    OVER = "over"
    """Nothing of this attempt will ever be taken again."""


_ANSWERS = {
    400: Answer.REFUSED,
    413: Answer.REFUSED,
    415: Answer.REFUSED,
    403: Answer.OVER,
    409: Answer.OVER,
    410: Answer.OVER,
}


def answer_of(code: int) -> Answer:
    """The meaning of an HTTP status code of the progress endpoint; what is not listed is worth another try."""
    if 200 <= code < 300:
        return Answer.ACKNOWLEDGED
    return _ANSWERS.get(code, Answer.RETRY)


def backoff(failures: int, pacing: Pacing, *, closing: bool, jitter: float) -> float:
    """Seconds to wait after so many failures in a row; `jitter` in [0, 1) spreads many drivers over the second half."""
    longest = min(pacing.max_backoff, pacing.first_backoff * 2.0 ** min(failures - 1, 32))
    if closing:
        longest = min(longest, pacing.closing_backoff)
    return longest * (0.5 + jitter / 2)


def read_token(endpoint: ProgressEndpoint, environ: Mapping[str, str]) -> str | None:
    """The bearer token, from the endpoint's token file, else from SNOWMELT_PROGRESS_TOKEN; None when there is neither.

    Raises:
        OSError: the token file cannot be read.
    """
    if endpoint.token_file is not None:
        return Path(endpoint.token_file).read_text(encoding="ascii").strip()
    return environ.get(TOKEN_ENV)


class ProgressOutbox:
    """Keeps the newest unacknowledged snapshot and sends it from a thread of its own.

    Without an endpoint nobody listens: snapshots are dropped and `close` returns True.
    """

    def __init__(self, endpoint: ProgressEndpoint | None, token: str | None, *, pacing: Pacing | None = None) -> None:
        self._endpoint = endpoint
        self._token = token
        self._pacing = pacing or Pacing()
        self._changed = threading.Condition()
        self._unsent: Progress | None = None
        self._last_acknowledged: Progress | None = None
        self._last_sent_at = float("-inf")
        self._not_before = float("-inf")
        self._failures = 0
        self._lost = False
        """Whether the newest snapshot will never be acknowledged."""
        self._over = endpoint is None
        self._closing = False
        self._said: set[str] = set()
        self._thread: threading.Thread | None = None
        if endpoint is not None:
            self._thread = threading.Thread(target=self._run, args=(endpoint,), name="progress-outbox", daemon=True)
            self._thread.start()

    def put(self, progress: Progress) -> None:
        """Hand over the newest snapshot, which replaces an earlier one. Never waits for the network, never raises."""
        with self._changed:
            self._lost = self._over
            if self._over:
                return
            self._unsent = progress
            if progress.final is not None:
                self._not_before = float("-inf")
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Try to deliver the newest snapshot for at most `timeout_s` seconds, then stop.

        Returns:
            True when the newest snapshot was acknowledged, or nobody listens; False when the operator refused it or was
            not reached, and the record in storage is then the only final word.
        """
        if self._thread is None:
            return True
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._not_before = float("-inf")
            self._changed.notify_all()
            while self._waiting_to_send() and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            delivered = self._unsent is None and not self._lost
            if not delivered:
                self._say("close", "the newest progress was not acknowledged by %s", self._url())
            self._over = True
            self._changed.notify_all()
        return delivered

    def _waiting_to_send(self) -> bool:
        return not self._over and self._unsent is not None

    def _url(self) -> str:
        return self._endpoint.url if self._endpoint is not None else ""

    def _say(self, about: str, message: str, *arguments: object) -> None:
        """Log a kind of trouble once, until something was acknowledged again."""
        if about not in self._said:
            self._said.add(about)
            log.warning("progress: " + message, *arguments)

    def _run(self, endpoint: ProgressEndpoint) -> None:
        try:
            with self._client(endpoint) as client:
                while (progress := self._next()) is not None:
                    self._settle(progress, *self._post(client, endpoint.url, progress))
        except Exception as error:
            log.exception("progress is no longer reported to %s: %s", endpoint.url, error)
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _client(self, endpoint: ProgressEndpoint) -> httpx.Client:
        # trust_env would hand the token to whatever proxy the pod's environment names.
        return httpx.Client(
            verify=ssl.create_default_context(cafile=endpoint.ca_file),
            timeout=self._pacing.request_timeout,
            trust_env=False,
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
        )

    def _next(self) -> Progress | None:
        """Wait until a snapshot is due, and take a look at it; None once the outbox is over."""
        with self._changed:
            while not self._over:
                wait = self._seconds_until_due(time.monotonic())
                if self._unsent is not None and wait is not None and wait <= 0:
                    return self._unsent
                self._changed.wait(wait)
            return None

    def _seconds_until_due(self, now: float) -> float | None:
        if self._unsent is None:
            return None
        due = (
            self._not_before
            if self._urgent(self._unsent)
            else max(self._not_before, self._last_sent_at + self._pacing.pace)
        )
        return max(0.0, due - now)

    def _urgent(self, progress: Progress) -> bool:
        last = self._last_acknowledged
        return self._closing or progress.final is not None or last is None or last.stage != progress.stage

    def _post(self, client: httpx.Client, url: str, progress: Progress) -> tuple[Answer, str, float]:
        """Send one snapshot; gives the answer, its words, and how long the operator asks to wait."""
        try:
            response = client.post(url, json=progress.to_json_dict())
        except httpx.TransportError as error:
            return Answer.RETRY, f"{type(error).__name__}: {error}", 0.0
        retry_after = response.headers.get("Retry-After", "")
        asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return answer_of(response.status_code), f"HTTP {response.status_code}: {response.text[:300]}", asked

    def _settle(self, progress: Progress, answer: Answer, words: str, asked: float) -> None:
        with self._changed:
            self._last_sent_at = time.monotonic()
            if answer is Answer.ACKNOWLEDGED:
                self._failures = 0
                self._said.clear()
                self._last_acknowledged = progress
                self._forget(progress)
            elif answer is Answer.RETRY:
                self._failures += 1
                delay = backoff(self._failures, self._pacing, closing=self._closing, jitter=random.random())
                self._not_before = time.monotonic() + max(delay, min(asked, self._pacing.max_backoff))
                self._say("retry", "not acknowledged by %s, will try again: %s", self._url(), words)
            elif answer is Answer.REFUSED:
                self._say("refused", "a snapshot was refused by %s: %s", self._url(), words)
                self._lost = self._unsent is progress
                self._forget(progress)
            else:
                self._say("over", "no longer reported, because %s answered %s", self._url(), words)
                self._over = True
            self._changed.notify_all()

    def _forget(self, progress: Progress) -> None:
        if self._unsent is progress:
            self._unsent = None
