"""What the workers exchange, as processes that meet over gloo."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.distributed import World, replicated


def gradient(rank: int, size: int) -> torch.Tensor:
    """Worker `rank`'s own, of the layer that `layer` makes."""
    return torch.linspace(0.1, 1.3, 12).reshape(3, 4) * (rank + 1) / size


def exchange(rank: int, size: int, precision: Precision, folder: str) -> None:
    """The gradient after a backward pass lies in `folder`/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    layer = nn.Linear(4, 3, bias=False)
    network = replicated(layer, World(rank, size), precision)
    torch.autograd.backward((network(torch.eye(4)) * gradient(rank, size).T).sum())
    torch.save(layer.weight.grad, Path(folder, f"{rank}.pt"))
    del network
    gc.collect()  # it holds the group in a cycle, whose threads must not be ended by the process's end
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
def test_all_workers_get_the_mean_of_their_gradients(tmp_path: Path, precision: Precision) -> None:
    mp.spawn(exchange, (2, precision, str(tmp_path)), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    expected = (gradient(0, 2) + gradient(1, 2)) / 2
    exact = precision is Precision.FLOAT32
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], expected, rtol=1e-6 if exact else 2**-7)
    assert torch.equal(found[0], found[0].bfloat16().float()) is not exact  # half the bytes


def test_one_worker_exchanges_nothing() -> None:
    layer = nn.Linear(2, 2)
    assert replicated(layer, World(), Precision.BFLOAT16) is layer
