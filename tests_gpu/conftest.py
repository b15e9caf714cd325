"""Tests on a GPU: `make test-gpu`, on a machine that has one. Nothing else runs them, and nothing takes them for passed
where there is none."""

from __future__ import annotations

import pytest
import torch

from snowmelt_trainer.training.distributed import World
from tests.trainer.training.conftest import configure, digits, local_ray, losses

__all__ = ["configure", "digits", "local_ray", "losses"]


def pytest_sessionstart() -> None:
    """Ends at once on a machine without an accelerator."""
    if not torch.cuda.is_available():
        pytest.exit("these tests need a GPU that torch can use, and this machine has none", returncode=2)


@pytest.fixture
def gpu() -> World:
    """The one worker of a run, on the first GPU."""
    return World(device=torch.device("cuda", 0))


@pytest.fixture(autouse=True)
def whole_memory() -> None:
    """What a test may take of the GPU, and what it took, begins anew."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.reset_peak_memory_stats()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 is float32, and the same every time: no TF32, and only algorithms that always give the same."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
