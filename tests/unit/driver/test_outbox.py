"""The outbox against a real HTTP server: what is sent, when, and that training never notices."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_trainer.contract.progress import FinalRecord, Progress, ProgressStatus, StageStatus
from snowmelt_trainer.contract.reasons import Outcome, Reason
from snowmelt_trainer.contract.run import ProgressEndpoint
from snowmelt_trainer.driver.outbox import Answer, Pacing, ProgressOutbox, answer_of, backoff, read_token

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FAST = Pacing(pace=0.2, first_backoff=0.02, max_backoff=0.05, closing_backoff=0.05, request_timeout=1.0)


class Operator:
    """An HTTP server that answers with the codes it is told, then 200, and remembers what came."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.always: int | None = None
        self.received: list[dict[str, Any]] = []
        self.arrived_at: list[float] = []
        self.authorization: set[str | None] = set()
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def endpoint(self) -> ProgressEndpoint:
        return ProgressEndpoint(url=f"http://127.0.0.1:{self.server.server_address[1]}/progress")

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, timeout=5), self.received

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def sequences(self) -> list[int]:
        return [body["sequence"] for body in self.received]

    def _take(self, body: dict[str, Any], authorization: str | None) -> int:
        with self.changed:
            self.received.append(body)
            self.arrived_at.append(time.monotonic())
            self.authorization.add(authorization)
            self.changed.notify_all()
            return self.always or (self.codes.pop(0) if self.codes else 200)

    def _handler(operator) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(operator._take(body, self.headers["Authorization"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.stop()


def snapshot(sequence: int, *, stage: int = 1, final: bool = False) -> Progress:
    return Progress(
        attempt=1,
        sequence=sequence,
        time=NOON,
        stage=StageStatus(index=stage, of=3, name="fc", unfrozen=("fc",), trainable_parameters=1, total_parameters=2),
        progress=ProgressStatus(percent=0),
        final=FinalRecord(outcome=Outcome.FAILED, reason=Reason.DIVERGED, message="NaN") if final else None,
    )


def test_progress_is_posted_with_the_token(operator: Operator) -> None:
    outbox = ProgressOutbox(operator.endpoint, "secret", pacing=FAST)
    outbox.put(snapshot(1))
    assert outbox.close(5)
    assert operator.received == [snapshot(1).to_json_dict()]
    assert operator.authorization == {"Bearer secret"}


def test_within_a_stage_only_the_newest_is_sent_and_not_before_the_pace(operator: Operator) -> None:
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(0))
    operator.wait(lambda: len(operator.received) == 1)
    for sequence in range(1, 50):
        outbox.put(snapshot(sequence))
    operator.wait(lambda: len(operator.received) == 2)
    outbox.close(5)
    assert operator.sequences() == [0, 49]
    assert operator.arrived_at[1] - operator.arrived_at[0] >= 0.9 * FAST.pace


@pytest.mark.parametrize("urgent", [snapshot(1, stage=2), snapshot(1, final=True)])
def test_a_stage_change_and_the_final_record_do_not_wait(operator: Operator, urgent: Progress) -> None:
    outbox = ProgressOutbox(operator.endpoint, None, pacing=Pacing(pace=3600))
    outbox.put(snapshot(0))
    operator.wait(lambda: len(operator.received) == 1)
    outbox.put(urgent)
    operator.wait(lambda: len(operator.received) == 2)
    assert outbox.close(5)


def test_what_was_not_acknowledged_is_sent_again(operator: Operator) -> None:
    operator.codes = [503, 500, 429, 401]
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(3, final=True))
    assert outbox.close(5)
    assert operator.sequences() == [3] * 5


def test_an_operator_that_comes_back_gets_the_newest_alone(operator: Operator) -> None:
    endpoint = operator.endpoint
    operator.stop()
    outbox = ProgressOutbox(endpoint, None, pacing=FAST)
    for sequence in range(10):
        outbox.put(snapshot(sequence, stage=1 + sequence % 3))
    back = Operator.__new__(Operator)
    reopened = type("Reopened", (ThreadingHTTPServer,), {"allow_reuse_address": True})
    back.__dict__.update(operator.__dict__)
    back.server = reopened(operator.server.server_address, back._handler())
    threading.Thread(target=back.server.serve_forever, args=(0.02,), daemon=True).start()
    assert outbox.close(5)
    back.stop()
    assert back.sequences() == [9]


@pytest.mark.parametrize("code", [403, 409, 410])
def test_an_attempt_that_is_over_stops_the_sending(
    operator: Operator, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    operator.always = code
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(0))
    operator.wait(lambda: len(operator.received) == 1)
    assert not outbox.close(5)
    outbox.put(snapshot(1, final=True))
    assert len(operator.received) == 1
    assert len([line for line in caplog.messages if f"HTTP {code}" in line]) == 1


@pytest.mark.parametrize("code", [400, 413])
def test_a_refused_snapshot_is_not_repeated_and_the_next_one_is_sent(operator: Operator, code: int) -> None:
    operator.codes = [code]
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(0))
    operator.wait(lambda: len(operator.received) == 1)
    outbox.put(snapshot(1, final=True))
    assert outbox.close(5)
    assert operator.sequences() == [0, 1]


def test_a_refused_final_record_is_reported_as_not_delivered(operator: Operator) -> None:
    operator.always = 400
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(0, final=True))
    assert not outbox.close(5)


def test_closing_gives_up_after_its_time_when_nobody_answers(operator: Operator) -> None:
    operator.always = 503
    outbox = ProgressOutbox(operator.endpoint, None, pacing=FAST)
    outbox.put(snapshot(0, final=True))
    before = time.monotonic()
    assert not outbox.close(0.3)
    assert 0.25 < time.monotonic() - before < 2


def test_putting_never_waits_for_an_operator_that_hangs() -> None:
    hanging = __import__("socket").create_server(("127.0.0.1", 0))
    outbox = ProgressOutbox(ProgressEndpoint(url=f"http://127.0.0.1:{hanging.getsockname()[1]}/"), None, pacing=FAST)
    before = time.monotonic()
    for sequence in range(1000):
        outbox.put(snapshot(sequence))
    assert time.monotonic() - before < 0.2
    assert not outbox.close(0.1)
    hanging.close()


@pytest.mark.parametrize(
    "endpoint",
    [ProgressEndpoint(url="not a url"), ProgressEndpoint(url="https://127.0.0.1:1/", ca_file="/absent/ca.pem")],
)
def test_an_endpoint_that_cannot_be_used_does_not_reach_the_training(endpoint: ProgressEndpoint) -> None:
    outbox = ProgressOutbox(endpoint, None, pacing=FAST)
    outbox.put(snapshot(0, final=True))
    assert not outbox.close(0.2)


def test_what_comes_after_the_outbox_gave_up_is_not_called_delivered() -> None:
    outbox = ProgressOutbox(ProgressEndpoint(url="https://127.0.0.1:1/", ca_file="/absent/ca.pem"), None, pacing=FAST)
    assert outbox._thread is not None
    outbox._thread.join()
    outbox.put(snapshot(0, final=True))
    assert not outbox.close(0.2)


def test_without_an_endpoint_nobody_listens_and_nothing_is_missing() -> None:
    outbox = ProgressOutbox(None, None)
    outbox.put(snapshot(0, final=True))
    assert outbox.close(0)


def test_the_token_comes_from_its_file_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    environment = {"SNOWMELT_PROGRESS_TOKEN": "from-environment"}
    assert read_token(ProgressEndpoint(url="http://x", token_file=str(tmp_path / "token")), environment) == "from-file"
    assert read_token(ProgressEndpoint(url="http://x"), environment) == "from-environment"


@given(st.integers(100, 599))
def test_every_answer_means_something_and_only_2xx_acknowledges(code: int) -> None:
    assert (answer_of(code) is Answer.ACKNOWLEDGED) == (200 <= code < 300)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.booleans())
def test_waits_between_tries_grow_within_bounds(failures: int, jitter: float, closing: bool) -> None:
    wait = backoff(failures, Pacing(), closing=closing, jitter=jitter)
    assert 0.25 <= wait <= (2.0 if closing else 30.0)
    assert wait <= backoff(failures + 1, Pacing(), closing=closing, jitter=jitter)
