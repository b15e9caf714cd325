"""A solver's features are standardised by all of them; a copy is held where it has room, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from snowmelt_trainer.data.loading import Batch
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.standardised import ROWS, StandardisedFeatures

COUNT, WIDTH = 2 * ROWS + 5, 3


@dataclass
class Kept:
    """Features in a training precision, as a cache gives them, noting how they are read."""

    features: Tensor
    labels: Tensor
    failure: str = ""
    parts: list[int] = field(default_factory=list)
    """How many images each part had that was read again."""
    wholes: int = 0

    @property
    def owned(self) -> int:
        return len(self.labels)

    def whole(self) -> Iterator[Batch]:
        self.wholes += 1
        return self._in_parts(64)

    def again(self, most: int) -> Iterator[Batch]:
        for part in self._in_parts(most):
            self.parts.append(len(part[1]))
            yield part

    def _in_parts(self, most: int) -> Iterator[Batch]:
        for ids in torch.arange(self.owned).split(most):
            yield self.features[ids], self.labels[ids], ids


@pytest.fixture
def kept() -> Kept:
    torch.manual_seed(0)
    features = torch.randn(COUNT, WIDTH) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([5.0, 0.0, -1.0])
    return Kept(features.bfloat16(), torch.arange(COUNT) % 4)


def standardised(kept: Kept, room: int) -> StandardisedFeatures:
    return StandardisedFeatures(kept, WIDTH, World(), samples=COUNT, room=room)


def gathered(features: StandardisedFeatures) -> tuple[Tensor, Tensor]:
    blocks = [(block.clone(), labels) for block, labels in features.blocks()]
    return torch.cat([block for block, _ in blocks]), torch.cat([labels for _, labels in blocks])


@pytest.mark.parametrize("room", [0, COUNT * WIDTH * 4], ids=["read again", "held"])
def test_they_have_a_mean_of_zero_and_a_deviation_of_one(kept: Kept, room: int) -> None:
    features, labels = gathered(standardised(kept, room))
    plain = kept.features.double()
    wanted = (plain - plain.mean(0)) / plain.std(0, correction=0)
    assert torch.allclose(features.double(), wanted, atol=1e-5)
    assert torch.equal(labels, kept.labels)


def test_a_copy_that_has_room_is_held_and_nothing_is_read_twice(kept: Kept) -> None:
    features = standardised(kept, COUNT * WIDTH * 4)
    assert len(list(features.blocks())) == 1
    assert (kept.wholes, kept.parts) == (1, [])


def test_a_copy_that_has_none_is_not_made(kept: Kept) -> None:
    """Not even while mean and deviation are found: but for that, one pass reads them again."""
    features = standardised(kept, COUNT * WIDTH * 4 - 1)
    assert kept.wholes == 1
    assert max(kept.parts) <= ROWS
    one_pass = list(kept.parts)
    blocks = [block.data_ptr() for block, _ in features.blocks()]
    assert kept.parts == 2 * one_pass
    assert len(set(blocks)) == 1, "the blocks lie in the same memory"


def test_features_that_are_not_kept_any_more_are_held_rather_than_computed_in_every_pass(kept: Kept) -> None:
    features = standardised(kept, 0)
    before, _ = gathered(features)
    kept.failure, kept.parts, kept.wholes = "the disk is full", [], 0
    after = [gathered(features)[0] for _ in range(3)]
    assert (kept.wholes, kept.parts) == (1, [])
    assert all(torch.equal(one, before) for one in after)
