"""The work queue: dedup by key, one at a time, back-off, delays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from snowmelt_operator.queue import RetryLaterError, WorkQueue
from snowmelt_operator.store import Key

SHOES, HATS = Key("team", "shoes"), Key("team", "hats")


@asynccontextmanager
async def running(
    work: Callable[[Key], Awaitable[timedelta | None]], *, workers: int = 4, base: float = 0.001, longest: float = 0.01
) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue(work, workers=workers, backoff_base=base, backoff_max=longest)
    queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_key_that_waits_is_not_queued_again() -> None:
    done: list[Key] = []
    opened = asyncio.Event()

    async def work(key: Key) -> None:
        await opened.wait()
        done.append(key)

    async with running(work, workers=1) as queue:
        queue.wake(HATS)
        await asyncio.sleep(0)
        for _ in range(5):
            queue.wake(SHOES)
        opened.set()
        await until(lambda: SHOES in done)
        queue.wake(HATS)
        await until(lambda: len(done) == 3)
    assert done == [HATS, SHOES, HATS]


async def test_a_key_is_never_worked_on_twice_at_once_and_is_worked_on_again_when_woken_meanwhile() -> None:
    at_once = most = rounds = 0

    async def work(_: Key) -> None:
        nonlocal at_once, most, rounds
        at_once += 1
        most = max(most, at_once)
        queue.wake(SHOES)
        await asyncio.sleep(0.001)
        at_once -= 1
        rounds += 1

    async with running(work) as queue:
        queue.wake(SHOES)
        await until(lambda: rounds >= 5)
    assert most == 1


async def test_different_keys_are_worked_on_side_by_side_up_to_the_number_of_workers() -> None:
    at_once = most = done = 0

    async def work(_: Key) -> None:
        nonlocal at_once, most, done
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        done += 1

    async with running(work, workers=3) as queue:
        for number in range(12):
            queue.wake(Key("team", str(number)))
        await until(lambda: done == 12)
    assert most == 3


@pytest.mark.parametrize("error", [RetryLaterError("away"), ValueError("a bug")])
async def test_a_key_that_fails_is_tried_again_and_stops_no_other(error: Exception) -> None:
    tries = {SHOES: 0, HATS: 0}

    async def work(key: Key) -> None:
        tries[key] += 1
        if key == SHOES and tries[key] < 4:
            raise error

    async with running(work, workers=1) as queue:
        queue.wake(SHOES)
        queue.wake(HATS)
        await until(lambda: tries[SHOES] == 4 and tries[HATS] == 1)


async def test_the_back_off_doubles_to_its_bound_and_begins_anew_after_a_success() -> None:
    moments: list[float] = []
    clock = 0.0

    async def work(_: Key) -> None:
        moments.append(clock)
        if len(moments) != 5:
            raise RetryLaterError("away")

    queue = WorkQueue(work, workers=1, backoff_base=1.0, backoff_max=4.0, clock=lambda: clock)
    queue.start()
    try:
        queue.wake(SHOES)
        for expected in (1, 2, 3, 4, 5, 6):
            await until(lambda expected=expected: len(moments) == expected)  # type: ignore[misc]
            if expected == 5:
                queue.wake(SHOES)
            for _ in range(400):
                if len(moments) > expected:
                    break
                clock += 0.1
                queue.wake_after(HATS, 10**6)  # lets the timer look at the clock
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        waits = [round(later - earlier) for earlier, later in pairwise(moments)]
    finally:
        await queue.stop()
    assert waits[:4] == [1, 2, 4, 4]
    assert waits[5] == 1


async def test_a_later_recheck_takes_the_place_of_an_earlier_one() -> None:
    done: list[Key] = []

    async def work(key: Key) -> None:
        done.append(key)

    async with running(work) as queue:
        queue.wake_after(SHOES, 0.005)
        queue.wake_after(SHOES, 3600)
        queue.wake_after(HATS, 0.02)
        await until(lambda: HATS in done)
    assert done == [HATS]


async def test_what_the_work_asks_for_is_done_when_it_is_due() -> None:
    rounds = 0

    async def work(_: Key) -> timedelta | None:
        nonlocal rounds
        rounds += 1
        return timedelta(milliseconds=2) if rounds < 3 else None

    async with running(work) as queue:
        queue.wake(SHOES)
        await until(lambda: rounds == 3)
