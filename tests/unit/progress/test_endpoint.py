"""The progress endpoint on a real socket: the right answer to every wrong request, and nothing that stops it."""

from __future__ import annotations

import asyncio
import json
import random
import time

import jwt
import pytest

from snowmelt_operator.progress.endpoint import ProgressEndpoint
from snowmelt_operator.progress.ratelimit import RateLimit
from snowmelt_operator.progress.tokens import SigningKey
from snowmelt_operator.render.config import progress_url
from snowmelt_trainer.contract.progress import MAX_PROGRESS_BYTES, Progress
from tests.unit.progress.listening import Listening
from tests.unit.progress.snapshots import NOON, ScriptedStore, job_document, snapshot

UNSIGNED = jwt.encode(
    {"uid": "uid-1", "ns": "team", "name": "shoes", "attempt": 1, "exp": 4_000_000_000}, None, algorithm="none"
)


async def still_serves(listening: Listening, sequence: int = 1_000_000) -> None:
    body = snapshot(sequence).model_dump_json(by_alias=True).encode()
    assert (await listening.post(body)).status_code == 200


async def test_progress_with_its_own_token_reaches_status(listening: Listening, store: ScriptedStore) -> None:
    answer = await listening.post()
    assert (answer.status_code, answer.json()["status"]) == (200, "Success")
    assert store.written[0]["display"]["stage"] == "1/5 layer4"


@pytest.mark.parametrize("header", ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer a.b.c", f"Bearer {UNSIGNED}"])
async def test_without_a_token_of_this_operator_it_is_401(listening: Listening, header: str) -> None:
    answer = await listening.post(Authorization=header)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_an_expired_token_is_401_and_says_when_it_expired(listening: Listening) -> None:
    answer = await listening.post(token=listening.token_for(hours=-1))
    assert answer.status_code == 401
    assert "expired at 2026-11-24T11:00:00" in answer.json()["message"]


@pytest.mark.parametrize("other", [{"name": "hats"}, {"namespace": "rivals"}])
async def test_the_token_of_another_job_is_403(
    listening: Listening, store: ScriptedStore, other: dict[str, str]
) -> None:
    answer = await listening.post(token=listening.token_for(**other))
    assert answer.status_code == 403
    assert store.written == []


async def test_a_body_of_another_attempt_than_the_token_is_403(listening: Listening) -> None:
    body = snapshot(1, attempt=2).model_dump_json(by_alias=True).encode()
    assert (await listening.post(body)).status_code == 403


async def test_the_token_of_a_superseded_attempt_is_409(listening: Listening, store: ScriptedStore) -> None:
    store.document = job_document({"attempts": {"current": 2}})
    answer = await listening.post()
    assert answer.status_code == 409
    assert answer.json()["message"] == "attempt 1 was superseded by attempt 2"


async def test_the_token_of_a_job_that_was_created_anew_is_410(listening: Listening, store: ScriptedStore) -> None:
    store.document = job_document(uid="uid-2")
    assert (await listening.post()).status_code == 410


async def test_a_deleted_job_is_404(listening: Listening, store: ScriptedStore) -> None:
    store.document = None
    assert (await listening.post()).status_code == 404


async def test_an_api_server_that_is_away_is_503_with_a_time_to_come_back(
    listening: Listening, store: ScriptedStore
) -> None:
    store.away = True
    answer = await listening.post()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b'{"attempt": 1}', "sequence"),
        (b'{"attempt": 1, "sequence": -1}', "sequence"),
        (b"[" * 60_000, "body"),
        (b'{"attempt": ' + b"9" * 50_000 + b"}", "body"),
        (b'{"attempt": "\\ud800"}', "body"),
    ],
)
async def test_a_malformed_body_is_400_and_names_the_field(listening: Listening, body: bytes, named: str) -> None:
    answer = await listening.post(body)
    assert answer.status_code == 400
    assert named in answer.json()["message"]
    assert len(answer.content) < 2000
    await still_serves(listening)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("percent", 101),
        ("samplesPerSecond", float("nan")),
        ("estimatedCompletionTime", "2026-11-24T12:00:00"),
        ("unknown", 1),
    ],
)
async def test_a_progress_that_status_cannot_hold_is_400(listening: Listening, field: str, value: object) -> None:
    document = snapshot(1).to_json_dict()
    document["progress"][field] = value
    answer = await listening.post(json.dumps(document).encode())
    assert answer.status_code == 400
    assert f"progress.{field}" in answer.json()["message"]


@pytest.mark.parametrize("headers", [{"content_type": "text/plain"}, {"Content-Encoding": "gzip"}])
async def test_another_media_type_is_415(listening: Listening, headers: dict[str, str]) -> None:
    assert (await listening.post(**headers)).status_code == 415


async def test_a_body_that_announces_too_much_is_413_without_being_read(listening: Listening) -> None:
    answer = await listening.raw(listening.head(f"Content-Length: {MAX_PROGRESS_BYTES + 1}"))
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_chunked_body_that_grows_too_large_is_413(listening: Listening) -> None:
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    answer = await listening.raw(listening.head("Transfer-Encoding: chunked") + chunk * 17)
    assert answer.startswith(b"HTTP/1.1 413 ")
    await still_serves(listening)


async def test_the_largest_allowed_body_is_read(listening: Listening) -> None:
    body = snapshot(1).model_dump_json(by_alias=True).encode()
    assert (await listening.post(body + b" " * (MAX_PROGRESS_BYTES - len(body)))).status_code == 200


async def test_a_body_that_does_not_arrive_is_408_and_the_connection_is_closed(listening: Listening) -> None:
    answer = await listening.raw(listening.head("Content-Length: 100") + b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_never_sends_a_head_is_closed(listening: Listening) -> None:
    assert await listening.raw(b"POST /v1/") == b""


async def test_slow_clients_do_not_hold_up_the_others(listening: Listening) -> None:
    slow = [asyncio.create_task(listening.raw(listening.head("Content-Length: 9") + b"{")) for _ in range(40)]
    await asyncio.sleep(0)
    before = time.monotonic()
    await still_serves(listening)
    assert time.monotonic() - before < 0.3
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in await asyncio.gather(*slow))


async def test_a_client_that_breaks_off_leaves_the_endpoint_serving(listening: Listening) -> None:
    await listening.raw(listening.head("Content-Length: 100") + b"{", finish=True)
    await still_serves(listening)


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "", 405), ("POST", "/more", 404), ("POST", "/%2e%2e", 404)]
)
async def test_other_paths_and_methods_get_a_status_too(
    listening: Listening, method: str, path: str, code: int
) -> None:
    head = listening.head("Content-Length: 0", "Connection: close").replace(b"POST", method.encode())
    answer = await listening.raw(head.replace(b"/progress ", f"/progress{path} ".encode()))
    assert answer.startswith(f"HTTP/1.1 {code} ".encode())
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["kind"] == "Status"


async def test_a_job_that_reports_too_often_is_429_and_the_others_are_not(store: ScriptedStore) -> None:
    key = SigningKey(b"k" * 32)
    endpoint = ProgressEndpoint(key, Taking(), rate=RateLimit(per_second=0.001, burst=3), now=lambda: NOON)
    runner = await endpoint.start("127.0.0.1", 0)
    host, port = runner.addresses[0][:2]
    listening = Listening(host, port, key, "", [])
    own = listening.token_for()
    codes = [(await listening.post(token=own)).status_code for _ in range(4)]
    other = await listening.post(
        token=listening.token_for(uid="uid-2", name="hats"), url=progress_url(listening.base, "team", "hats")
    )
    await runner.cleanup()
    assert codes == [200, 200, 200, 429]
    assert other.status_code == 200


async def test_a_failure_of_the_operator_itself_is_500_without_a_trace() -> None:
    key = SigningKey(b"k" * 32)
    endpoint = ProgressEndpoint(key, Failing(), now=lambda: NOON)
    runner = await endpoint.start("127.0.0.1", 0)
    host, port = runner.addresses[0][:2]
    listening = Listening(host, port, key, "", [])
    answer = await listening.post(token=listening.token_for())
    await runner.cleanup()
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "secret detail" not in answer.text


@pytest.mark.parametrize("seed", range(8))
async def test_random_bytes_never_stop_the_endpoint(listening: Listening, seed: int) -> None:
    generator = random.Random(seed)
    valid = snapshot(1).model_dump_json(by_alias=True).encode()
    request = listening.head(f"Content-Length: {len(valid)}") + valid
    await asyncio.gather(*(listening.raw(mutated(request, generator), finish=True) for _ in range(25)))
    await listening.raw(generator.randbytes(5000), finish=True)
    await still_serves(listening)
    assert 500 not in listening.codes


@pytest.mark.parametrize("seed", range(4))
async def test_random_bodies_are_answered_with_200_or_a_refusal(listening: Listening, seed: int) -> None:
    generator = random.Random(seed)
    valid = snapshot(1, final=True).model_dump_json(by_alias=True).encode()
    codes = {(await listening.post(mutated(valid, generator))).status_code for _ in range(50)}
    assert codes <= {200, 400, 403, 409}
    assert 400 in codes


def mutated(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        at = generator.randrange(len(changed))
        match generator.randrange(3):
            case 0:
                changed[at] = generator.randrange(256)
            case 1:
                del changed[at : at + generator.randint(1, 20)]
            case _:
                changed[at:at] = generator.randbytes(generator.randint(1, 20))
    return bytes(changed)


class Taking:
    async def submit(self, namespace: str, name: str, uid: str, progress: Progress) -> None:
        return None


class Failing:
    async def submit(self, namespace: str, name: str, uid: str, progress: Progress) -> None:
        raise RuntimeError("secret detail")
