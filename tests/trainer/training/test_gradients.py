"""What several workers make of their gradients and statistics, as processes that meet over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.averaging import AveragedWeights
from snowmelt_trainer.training.distributed import World, average_buffers
from snowmelt_trainer.training.updates import updates_of
from tests.trainer.training.networks import IMAGES, NETWORKS, WIDTH, Network, updates_with_large_matrices

WORKERS = 2
SHARE = 0.01
"""Of a loss whose gradients are far below the limit."""
Weights = dict[str, Tensor]


def made(network: Network) -> nn.Module:
    torch.manual_seed(0)
    return network()


def loss_of(model: nn.Module, rank: int) -> Tensor:
    """Of this worker's images."""
    images = torch.randn(IMAGES, WIDTH, generator=torch.Generator().manual_seed(rank))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images)
    return outputs.float().square().mean() * SHARE


def plain_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Whose first step takes the gradient itself from the weights."""
    return torch.optim.SGD(model.parameters(), lr=1.0)


def weights(model: nn.Module) -> Weights:
    return {name: one.detach().clone() for name, one in model.named_parameters()}


def one_step(network: Network, world: World) -> Weights:
    model = made(network)
    updates = updates_with_large_matrices(model, plain_sgd(model), Precision.BFLOAT16, world)
    with updates.forward():
        loss = loss_of(model, world.rank)
    updates.step(loss)
    return weights(model)


def begun_differently(world: World) -> Weights:
    """Each worker's own weights, once its updates are made."""
    torch.manual_seed(world.rank)
    model = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.Conv2d(2, 2, 3)).to(
        memory_format=torch.channels_last
    )
    updates_of(plain_sgd(model), model, AveragedWeights({}, 0.0), Precision.BFLOAT16, world)
    return weights(model)


def averaged(world: World) -> dict[str, Tensor]:
    """The buffers of a trained and of a frozen layer, whose mean is the worker's rank to begin with."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval())
    for module in model:
        assert isinstance(module, nn.BatchNorm1d)
        assert module.running_mean is not None
        module.running_mean.fill_(float(world.rank))
    average_buffers(model, world)
    return dict(model.named_buffers())


def work(rank: int, folder: str) -> None:
    """Everything that the tests look at, into `folder`/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    world = World(rank, WORKERS)
    steps = {network.__name__: one_step(network, world) for network in NETWORKS}
    found = {"steps": steps, "begun": begun_differently(world), "buffers": averaged(world)}
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By rank."""
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(work, (str(folder),), nprocs=WORKERS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def step_of_all(network: Network) -> Weights:
    """With torch, in one process: the gradients of each worker's images one after another, added up."""
    model = made(network)
    optimizer = plain_sgd(model)
    for rank in range(WORKERS):
        torch.autograd.backward(loss_of(model, rank))
    optimizer.step()
    return weights(model)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_of_several_workers_is_down_the_sum_of_their_gradients(
    network: Network, found: list[dict[str, Any]]
) -> None:
    before, expected = weights(made(network)), step_of_all(network)
    ours = found[0]["steps"][network.__name__]
    assert ours.keys() == expected.keys()
    for name, was in before.items():
        torch.testing.assert_close(ours[name] - was, expected[name] - was, rtol=2**-7, atol=1e-6)
    assert any(not torch.equal(expected[name], was) for name, was in before.items())


@pytest.mark.parametrize("network", NETWORKS)
def test_all_workers_have_the_same_weights_after_a_step(network: Network, found: list[dict[str, Any]]) -> None:
    first, second = (one["steps"][network.__name__] for one in found)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_workers_begin_with_the_leaders_weights(found: list[dict[str, Any]]) -> None:
    first, second = (one["begun"] for one in found)
    leaders = begun_differently(World())
    for name, expected in leaders.items():
        assert torch.equal(first[name], expected)
        assert torch.equal(second[name], expected)


def test_statistics_of_trained_layers_are_averaged_over_the_workers(found: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(found):
        buffers = one["buffers"]
        assert buffers["0.running_mean"].tolist() == [0.5] * 3
        assert buffers["0.running_var"].tolist() == [1.0] * 3
        assert buffers["1.running_mean"].tolist() == [float(rank)] * 3
