"""The trainer's log: lines on standard error, alike from the driver and from Ray's workers."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """In the driver's process."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def log_to_stderr_of_worker() -> None:
    """In a worker's, where Ray Train has given the root logger handlers of its own by now, which drop what we say."""
    ours = logging.getLogger("snowmelt_trainer")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
