"""The solver in processes of its own, which import no more than it needs."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.head_start import HeadSolver


class Kept:
    """Features that a cache would give, in two portions."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.parts = [(f, y, y) for f, y in zip(features.chunk(2), labels.chunk(2), strict=True)]

    def whole(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self.parts

    @property
    def owned(self) -> int:
        return sum(len(labels) for _, labels, _ in self.parts)


def solve(rank: int, size: int, folder: str) -> None:
    """Worker `rank` of `size` solves three epochs on its share of 90 samples; head and loss lie in
    `folder`/head-RANK.pt."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(30)
    features = torch.randn(90, 8) * torch.arange(1, 9) + labels.unsqueeze(1)
    head = nn.Linear(8, 3)
    kept = Kept(features[rank::size], labels[rank::size])
    solver = HeadSolver(head, kept, World(rank, size), samples=90, label_smoothing=0.1, tick=lambda: None)  # type: ignore[arg-type]
    losses = [solver.solve(epoch) for epoch in range(3)]
    torch.save({"weight": head.weight.detach(), "loss": losses[-1]}, Path(folder) / f"head-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()
