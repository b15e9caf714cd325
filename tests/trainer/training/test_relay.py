"""Progress on its way from the workers to the driver, while Ray loses what carries it."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest
import ray

from snowmelt_trainer.contract.progress import Progress, ProgressStatus
from snowmelt_trainer.driver.relay import Sender, relayed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
ARRIVES_WITHIN_S = 30.0


def some_progress() -> Progress:
    return Progress(attempt=1, sequence=0, time=datetime.now(UTC), progress=ProgressStatus(percent=1))


class SlowMailbox:
    """Takes nothing in before it is opened."""

    def __init__(self) -> None:
        self.opened, self.texts = asyncio.Event(), list[str]()

    async def put(self, text: str) -> None:
        await self.opened.wait()
        self.texts.append(text)

    async def open(self) -> None:
        self.opened.set()

    async def arrived(self) -> int:
        return len(self.texts)


def test_a_worker_that_settles_ends_only_when_its_last_words_have_arrived() -> None:
    mailbox = ray.remote(SlowMailbox).options(num_cpus=0).remote()
    sender = Sender(mailbox)
    sender.settle()  # nothing was sent
    for _ in range(3):
        sender(some_progress())
    settling = threading.Thread(target=sender.settle)
    settling.start()
    assert settling.is_alive()
    ray.get(mailbox.open.remote())
    settling.join(ARRIVES_WITHIN_S)
    assert ray.get(mailbox.arrived.remote()) == 3
    assert not settling.is_alive()


def test_settling_gives_up_on_a_mailbox_that_is_gone() -> None:
    mailbox = ray.remote(SlowMailbox).options(num_cpus=0).remote()
    sender = Sender(mailbox)
    sender(some_progress())
    ray.kill(mailbox)
    sender.settle()


def test_progress_goes_on_arriving_after_the_mailbox_was_lost() -> None:
    progress = some_progress()
    until = time.monotonic() + ARRIVES_WITHIN_S
    arrived = threading.Event()
    with relayed(lambda _: arrived.set()) as sender:
        ray.kill(sender._mailbox, no_restart=False)
        while not arrived.wait(0.2) and time.monotonic() < until:
            sender(progress)
    assert arrived.is_set()
