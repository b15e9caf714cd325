"""The writer: what reaches status, and what a sender is told when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from snowmelt_operator.progress.refusal import Refusal
from snowmelt_operator.progress.writer import ProgressWriter
from snowmelt_trainer.contract.progress import Progress
from tests.unit.progress.snapshots import NOON, ScriptedStore, job_document, snapshot

PACE = 0.1


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def writer(store: ScriptedStore) -> ProgressWriter:
    return ProgressWriter(store, pace=PACE, now=lambda: NOON)


async def submit(writer: ProgressWriter, progress: Progress, uid: str = "uid-1") -> None:
    await writer.submit("team", "shoes", uid, progress)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def sequences(store: ScriptedStore) -> list[int]:
    return [status["trainer"]["sequence"] for status in store.written]


async def test_a_burst_within_a_stage_becomes_two_writes_first_and_newest(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    for sequence in range(50):
        await submit(writer, snapshot(sequence))
    await eventually(lambda: len(store.written) == 2)
    assert sequences(store) == [0, 49]


async def test_a_stage_change_is_in_status_before_it_is_acknowledged(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(0))
    await submit(writer, snapshot(1, stage=2))
    assert sequences(store) == [0, 1]


async def test_a_final_record_is_refused_while_the_api_server_is_away_and_taken_when_it_is_back(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(0))
    store.away = True
    with pytest.raises(Refusal) as caught:
        await submit(writer, snapshot(1, final=True))
    assert (caught.value.code, caught.value.retry_after) == (503, 5)
    store.away = False
    await submit(writer, snapshot(1, final=True))
    assert store.written[-1]["trainer"]["final"]["outcome"] == "Succeeded"


async def test_acknowledged_progress_is_written_once_the_api_server_is_back(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(0))
    await submit(writer, snapshot(1))
    store.away = True
    await asyncio.sleep(3 * PACE)
    assert sequences(store) == [0]
    store.away = False
    await eventually(lambda: sequences(store) == [0, 1])


async def test_progress_that_finds_the_job_changed_looks_again_and_is_written(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    store.conflicts = 1
    await submit(writer, snapshot(1))
    assert sequences(store) == [1]


async def test_progress_that_always_finds_the_job_changed_is_kept_by_the_sender(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    store.conflicts = 100
    with pytest.raises(Refusal) as caught:
        await submit(writer, snapshot(1))
    assert caught.value.code == 503
    store.conflicts = 0
    await submit(writer, snapshot(1))
    assert sequences(store) == [1]


async def test_a_late_snapshot_is_dropped(store: ScriptedStore, writer: ProgressWriter) -> None:
    await submit(writer, snapshot(5))
    await submit(writer, snapshot(4, stage=2))
    assert sequences(store) == [5]


async def test_a_restarted_operator_drops_what_status_already_holds(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(5))
    await submit(ProgressWriter(store, pace=PACE), snapshot(5))
    await submit(ProgressWriter(store, pace=PACE), snapshot(3))
    assert sequences(store) == [5]


async def test_a_final_record_sent_twice_is_acknowledged_twice_and_written_once(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(5, final=True))
    await submit(ProgressWriter(store, pace=PACE), snapshot(5, final=True))
    assert sequences(store) == [5]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (None, 404),
        (job_document(uid="uid-2"), 410),
        (job_document({"attempts": {"current": 2}}), 409),
    ],
)
async def test_a_job_that_is_gone_or_has_moved_on_is_not_written(
    store: ScriptedStore, writer: ProgressWriter, document: dict[str, Any] | None, code: int
) -> None:
    store.document = document
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            await submit(writer, snapshot(0))
        assert caught.value.code == code
    assert store.written == []


async def test_an_attempt_that_ends_while_progress_waits_is_not_written(
    store: ScriptedStore, writer: ProgressWriter
) -> None:
    await submit(writer, snapshot(0))
    await submit(writer, snapshot(1))
    store.document = job_document({"attempts": {"current": 2}})
    await asyncio.sleep(2 * PACE)
    assert sequences(store) == [0]


async def test_closing_writes_what_waits(store: ScriptedStore) -> None:
    writer = ProgressWriter(store, pace=3600)
    await submit(writer, snapshot(0))
    await submit(writer, snapshot(1))
    await writer.aclose()
    assert sequences(store) == [0, 1]


async def test_many_senders_of_one_final_record_cause_one_write(store: ScriptedStore, writer: ProgressWriter) -> None:
    await asyncio.gather(*(submit(writer, snapshot(1, final=True)) for _ in range(20)))
    assert sequences(store) == [1]
