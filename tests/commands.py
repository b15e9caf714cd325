"""The command `snowmelt` as people start it: a process of its own, ended with the test whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

Command = subprocess.Popen[str]
Start = Callable[..., Command]


@contextmanager
def snowmelt_commands() -> Iterator[Start]:
    """Gives `start(*arguments, environment=…)`, which starts `snowmelt ARGUMENTS` with these variables too; what still
    runs in the end is killed."""
    started: list[Command] = []

    def start(*arguments: str | Path, environment: Mapping[str, str]) -> Command:
        command: list[str | Path] = [Path(sys.executable).with_name("snowmelt"), *arguments]
        everything = {**os.environ, "COLUMNS": "200", **environment}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=everything, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


def read_until(process: Command, words: str) -> list[str]:
    """The lines up to the one with these words; fails the test when the command ends without saying them."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if words in line:
            return lines
    pytest.fail(f"ended without saying {words!r}: {lines}, {process.stderr.read() if process.stderr else ''}")
