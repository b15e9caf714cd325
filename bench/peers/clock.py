"""Two clocks that stand still while they are told to, and memory; all from /proc, for the process and its children."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int | None = None) -> float:
    """User and system time so far of a process, its ended children, and its living ones, theirs included."""
    pid = pid or os.getpid()
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text(encoding="ascii").split()
        ]
    except OSError:  # it has ended meanwhile, and its parent counts it
        return 0.0
    return sum(map(int, after_name[11:15])) / TICKS + sum(map(cpu_seconds, children))


def resident_mib(kind: str) -> float:
    """This process's resident memory in MiB: VmRSS is that of now, VmHWM the peak since `forget_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {kind}")


def forget_peak() -> None:
    """Peak memory counts from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@dataclass
class Stopwatch:
    """Seconds of the wall clock and of processors since `start`, without what was paused."""

    wall: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = cpu_seconds
    paused_wall: float = 0.0
    paused_cpu: float = 0.0
    _began: tuple[float, float] = field(default=(0.0, 0.0))

    def start(self) -> None:
        self._began = (self.wall(), self.cpu())
        self.paused_wall = self.paused_cpu = 0.0

    def read(self) -> tuple[float, float]:
        """(wall, processor) seconds; not to be called while paused."""
        return (
            self.wall() - self._began[0] - self.paused_wall,
            self.cpu() - self._began[1] - self.paused_cpu,
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time within does not count."""
        wall, cpu = self.wall(), self.cpu()
        try:
            yield
        finally:
            self.paused_wall += self.wall() - wall
            self.paused_cpu += self.cpu() - cpu
