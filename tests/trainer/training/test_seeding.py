"""Random numbers are a function of the place."""

from __future__ import annotations

import torch

from snowmelt_trainer.training.seeding import derive_seed, seed_dropout


def test_dropout_is_seeded_as_torch_seeds_it() -> None:
    seed_dropout(0, 1, 2, 3)
    drawn = torch.rand(5)
    torch.manual_seed(derive_seed(0, 1, 2, 3))
    assert torch.equal(drawn, torch.rand(5))


def test_another_step_draws_other_numbers() -> None:
    drawn = []
    for step in (0, 1, 0):
        seed_dropout(0, 1, 2, step)
        drawn.append(torch.rand(5))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
