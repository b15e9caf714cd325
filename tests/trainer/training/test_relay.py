"""Progress on its way from the workers to the driver, while Ray loses what carries it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
import ray

from snowmelt_trainer.contract.progress import Progress, ProgressStatus
from snowmelt_trainer.driver.relay import relayed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
ARRIVES_WITHIN_S = 30.0


def test_progress_goes_on_arriving_after_the_mailbox_was_lost() -> None:
    progress = Progress(attempt=1, sequence=0, time=datetime.now(UTC), progress=ProgressStatus(percent=1))
    until = time.monotonic() + ARRIVES_WITHIN_S
    arrived = threading.Event()
    with relayed(lambda _: arrived.set()) as sender:
        ray.kill(sender._mailbox, no_restart=False)
        while not arrived.wait(0.2) and time.monotonic() < until:
            sender(progress)
    assert arrived.is_set()
