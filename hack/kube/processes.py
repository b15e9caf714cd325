"""Processes that end with whoever started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

TERM_GRACE_S = 10.0


class Startable(ABC):
    """Started on entering a `with`, stopped on leaving it, and also when the start fails half-way."""

    @abstractmethod
    def start(self) -> None:
        """Start, and return when it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """End all that was started. Idempotent, and right after a start that failed."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Service:
    """A long-running command in a process group of its own, its output appended to a log file."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(word) for word in command]
        self._env = dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group.

        Raises:
            RuntimeError: the service was never started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.runs:
            return
        # A session of its own: Ctrl-C reaches the parent alone, which then stops its services in order.
        self._output = self.log.open("ab")
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stop(self, grace_s: float = TERM_GRACE_S) -> None:
        """SIGTERM to the group, SIGKILL to what is left after `grace_s`; a paused one is woken first. Idempotent."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._signal(number)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._output:
            self._output.close()

    def pause(self) -> None:
        """SIGSTOP: it holds its sockets and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def last_words(self, lines: int = 8) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return


class ReservedPort:
    """A loopback port that stays ours while its server is away: two control planes never meet, a restart finds it free.

    The socket is bound with SO_REUSEPORT and never listens; a server of the same user binds beside it the same way.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def free_port() -> int:
    """A loopback port that was free a moment ago, for servers that cannot share one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def ended(pid: int, within_s: float) -> bool:
    """Whether a process that is not our child is gone, waiting for it up to `within_s`."""
    until = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
