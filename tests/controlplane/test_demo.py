"""`make demo`, as far as its end by hand: the job itself is what test_life_under_ray.py looks at."""

from __future__ import annotations

import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hack.kube import ControlPlane, marked
from tests.controlplane.conftest import REPOSITORY

MARK = "TEST_OF_SNOWMELT"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def read_until(terminal: int, text: str, *, within_s: float = 200) -> str:
    """What the terminal shows up to and with `text`."""
    shown, end = "", time.monotonic() + within_s
    while text not in shown:
        assert time.monotonic() < end, f"{text!r} did not come; shown so far:\n{shown}"
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # Linux says EIO when nobody has the terminal open any more
                raise AssertionError(f"it ended before {text!r}; shown:\n{shown}") from None
    return shown


@pytest.mark.parametrize("moment", ["starting Ray", "kubectl apply"])
def test_ctrl_c_leaves_no_process_behind(moment: str, plane: ControlPlane, tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "hack.demo", "--directory", str(tmp_path)]
    demo = subprocess.Popen(
        # A controlling terminal of its own, so that Ctrl-C is what the terminal makes of it.
        ["setsid", "--ctty", *command], cwd=REPOSITORY, env=os.environ | {MARK: mark}, stdin=inside, stdout=inside,
        stderr=inside,
    )  # fmt: skip
    os.close(inside)
    try:
        read_until(terminal, moment)
        assert len(marked.processes(MARK, mark)) >= 3  # the demo, etcd and the API server at least
        os.write(terminal, b"\x03")
        assert demo.wait(60) == 130
        assert marked.processes(MARK, mark) == []
    finally:
        marked.kill(MARK, mark)
        os.close(terminal)


def test_a_demo_that_is_told_to_end_leaves_no_process_behind(plane: ControlPlane, tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "hack.demo", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE) as demo:
        try:
            assert demo.stdout is not None
            while b"starting Ray" not in (line := demo.stdout.readline()):
                assert line, "the demo ended before it started Ray"
            demo.send_signal(signal.SIGTERM)
            assert demo.wait(60) == 130
            assert marked.processes(MARK, mark) == []
        finally:
            marked.kill(MARK, mark)


def test_two_demos_do_not_share_a_folder(plane: ControlPlane, tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "hack.demo", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None
            first.stdout.readline()
            second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            assert second.returncode == 1
            assert "another demo uses" in second.stderr
        finally:
            first.terminate()
            first.wait(60)
            marked.kill(MARK, mark)
