"""`go build` of one package of hack/kube/modules, with live progress and atomic placement."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULES = Path(__file__).parent / "modules"
LINE_EVERY_S = 10.0


class BinariesMissingError(Exception):
    """A binary can be neither found nor built; the message is one line and says what to install."""


def go_command() -> str:
    """Path of the `go` command.

    Raises:
        BinariesMissingError: Go is not installed.
    """
    go = shutil.which("go")
    if go is None:
        raise BinariesMissingError(
            "no kube-apiserver and etcd, and no go to build them: install Go >= 1.26 (https://go.dev/dl),"
            " or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl"
        )
    return go


def required_version(module: str, dependency: str) -> str:
    """The version of `dependency` that hack/kube/modules/<module>/go.mod requires, for instance v1.36.3."""
    for line in (MODULES / module / "go.mod").read_text().splitlines():
        words = line.removeprefix("require").split()
        if words[:1] == [dependency]:
            return words[1]
    raise ValueError(f"hack/kube/modules/{module}/go.mod does not require {dependency}")


def build(module: str, package: str, target: Path, *, ldflags: str, version: str = "") -> None:
    """Build the static command `package` of the tools module `module` into `target`, which appears whole or not at all.

    `version` is for the line of progress alone.

    Raises:
        BinariesMissingError: Go is missing, or the build failed; names the log that holds the compiler's words.
    """
    go = go_command()
    directory = MODULES / module
    target.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    log = target.with_suffix(".build.log")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as workspace:
        built = Path(workspace) / target.name
        command = [go, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", str(built), package]
        with _Meter(f"building {target.name} {version}".rstrip()) as meter:
            meter.total = _count_packages(go, package, directory, environment)
            meter.done = 0
            with (
                subprocess.Popen(
                    command,
                    cwd=directory,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                ) as process,
                log.open("w") as record,
            ):
                for line in _lines(process):
                    record.write(line)
                    meter.done += 1
        if process.returncode != 0:
            raise BinariesMissingError(f"go build {package} failed with exit status {process.returncode}; see {log}")
        built.replace(target)
        log.unlink()


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stderr is not None
    return iter(process.stderr.readline, "")


def _count_packages(go: str, package: str, directory: Path, environment: dict[str, str]) -> int:
    """How many packages the command is made of; downloads the modules on the way."""
    listing = subprocess.run(
        [go, "list", "-deps", package], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        problem = (listing.stderr.strip().splitlines() or ["no message"])[-1]
        raise BinariesMissingError(f"go cannot get the modules of {package}: {problem}")
    return len(listing.stdout.split())


class _Meter:
    """A line of progress that moves by itself: redrawn on a terminal, a new line every ten seconds elsewhere."""

    def __init__(self, title: str) -> None:
        self.total: int | None = None
        self.done = 0
        self._title = title
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> _Meter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        print(("\r\033[K" if self._live else "") + self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        what = "getting the modules" if self.total is None else f"{min(self.done, self.total)}/{self.total} packages"
        return f"{self._title}: {what}, {time.monotonic() - self._began:.0f} s"

    def _draw(self) -> None:
        while not self._ended.wait(0.5 if self._live else LINE_EVERY_S):
            text = self._line()
            print(
                f"\r\033[K{text}" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True
            )


@contextmanager
def exclusively(lock: Path) -> Iterator[None]:
    """Hold `lock` against other processes, so that two that start at once build once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
