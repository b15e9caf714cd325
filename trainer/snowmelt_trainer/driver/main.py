"""The driver: reads its configuration, has it trained, publishes the model, and says how it ended."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from snowmelt_trainer.contract.progress import FinalRecord
from snowmelt_trainer.contract.reasons import Outcome
from snowmelt_trainer.contract.run import CONFIG_ENV, RunConfig
from snowmelt_trainer.data.opening import open_data
from snowmelt_trainer.driver.announcer import Announcer
from snowmelt_trainer.driver.failures import explain, failed
from snowmelt_trainer.driver.launch import connected, train
from snowmelt_trainer.driver.layout import Layout
from snowmelt_trainer.driver.logs import log_to_stderr
from snowmelt_trainer.driver.outbox import ProgressOutbox, read_token
from snowmelt_trainer.driver.publish import publish
from snowmelt_trainer.driver.record import keep_record, published_record
from snowmelt_trainer.errors import RunError
from snowmelt_trainer.training.storage import storage_errors

log = logging.getLogger(__name__)

ACKNOWLEDGEMENT_SECONDS = 60.0
"""How long the driver stays to have its last word acknowledged; after that the record in storage stands for it."""
EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 128 + signal.SIGTERM


class Stopped(KeyboardInterrupt):
    """The attempt is to end now, without a last word, so that another one can resume it.

    Where the signal meets Ray's native code, that lets a KeyboardInterrupt through, as a new one, and hears of any
    other exception only when what it waits for is there (`check_signals` in ray/_raylet.pyx).
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when the run succeeded, 1 when it failed, 2 when it was started wrongly, 143 when it was stopped."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    try:
        config = RunConfig.model_validate_json(_config_text(options.config))
        token = read_token(config.progress, os.environ) if config.progress else None
    except (OSError, ValueError) as error:
        print(f"snowmelt_trainer: cannot read the run's configuration: {error}", file=sys.stderr)
        return EXIT_USAGE
    with ExitStack() as stack:
        file = stack.enter_context(options.progress_file.open("a")) if options.progress_file else None
        outbox = ProgressOutbox(config.progress, token)
        stack.callback(outbox.close, 0.0)
        announcer = Announcer(config.job.attempt, outbox.put, file)
        try:
            record = _attempt(config, announcer)
        except Stopped:
            log.info("stopped; a new attempt resumes from the newest checkpoint")
            return EXIT_STOPPED
        announcer.ended(record)
        outbox.close(ACKNOWLEDGEMENT_SECONDS)
    log.info("%s, %s: %s", record.outcome, record.reason, record.message)
    return 0 if record.outcome is Outcome.SUCCEEDED else EXIT_FAILED


def _attempt(config: RunConfig, announcer: Announcer) -> FinalRecord:
    """Whatever happens in an attempt but its being stopped ends as a record."""
    try:
        return fine_tune(config, announcer)
    except Exception as error:
        reason, message = explain(error)
        log.error("the attempt failed: %s", message, exc_info=not isinstance(error, RunError))
        record = failed(reason, message)
    try:
        keep_record(Layout.of(config), record)
    except RunError as error:
        log.warning("the record could not be kept: %s", error.message)
    return record


def fine_tune(config: RunConfig, announcer: Announcer) -> FinalRecord:
    """Trains and publishes, or finds that an earlier attempt has done so already.

    Raises:
        Stopped: after SIGTERM.
        Exception: anything; `explain` turns it into a reason and a message.
    """
    where = Layout.of(config)
    with stoppable():
        announcer.started()
        done = published_record(where)
        if done is not None:
            log.info("an earlier attempt has published this run's model already")
            return done
        with storage_errors(where.run):
            where.checkpoints.mkdir(parents=True, exist_ok=True)
        data = open_data(config.data, seed=config.optimization.seed, volumes_root=config.volumes_root)
        log.info("the data is read: %d training and %d validation images", len(data.train), len(data.validation))
        with connected(config), stoppable():  # once more, because Ray installs a handler of its own when it connects
            trained = train(config, data, announcer)
        return publish(config, trained)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends what is within by raising Stopped, in this thread, so that all that was started is cleared away."""
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException as error:
        if stopped:
            raise Stopped from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snowmelt_trainer", description="Carries out one attempt of a fine-tuning run."
    )
    parser.add_argument(
        "--config", type=Path, help=f"RunConfig as JSON; without it, the environment variable {CONFIG_ENV} holds it"
    )
    parser.add_argument(
        "--progress-file", type=Path, help="append each progress snapshot to this file, one JSON object a line"
    )
    return parser


def _config_text(path: Path | None) -> str:
    if path is not None:
        return path.read_text()
    if CONFIG_ENV not in os.environ:
        raise ValueError(f"give --config FILE, or set {CONFIG_ENV}")
    return os.environ[CONFIG_ENV]
