"""Features in coordinates in which each class varies alike in all directions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snowmelt_trainer.training import whitening as module
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.whitening import whitening, within_class


@pytest.fixture
def labelled() -> tuple[Tensor, Tensor]:
    """Features (300, 6) that vary together, and far apart from class to class; labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(100)
    features = torch.randn(300, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    return features + 50.0 * labels.unsqueeze(1), labels


def test_classes_vary_alike_in_all_directions(labelled: tuple[Tensor, Tensor]) -> None:
    features, labels = labelled
    white = whitening(within_class(lambda: [(features, labels)], 6, 3, World()), 1e-6)
    found = features @ white.into.t()
    apart = torch.cat([found[labels == label] - found[labels == label].mean(0) for label in range(3)])
    covariance = apart.t() @ apart / apart.square().mean() / len(apart)
    assert torch.allclose(covariance, torch.eye(6), atol=1e-3)


def test_with_all_of_it_shrunken_features_stay_as_they_are(labelled: tuple[Tensor, Tensor]) -> None:
    white = whitening(within_class(lambda: [labelled], 6, 3, World()), 1.0)
    assert torch.allclose(white.into, torch.eye(6))


def test_back_is_the_inverse(labelled: tuple[Tensor, Tensor]) -> None:
    white = whitening(within_class(lambda: [labelled], 6, 3, World()), 0.01)
    assert torch.allclose(white.back @ white.into, torch.eye(6), atol=1e-5)


def test_many_rows_are_looked_at_in_portions(labelled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = within_class(lambda: [labelled], 6, 3, World())
    monkeypatch.setattr(module, "ROWS", 7)
    assert torch.allclose(within_class(lambda: [labelled], 6, 3, World()), whole, atol=1e-4)
    blocks = list(zip(*(one.split(70) for one in labelled), strict=True))
    assert torch.allclose(within_class(lambda: blocks, 6, 3, World()), whole, atol=1e-4)


def test_images_that_are_all_the_same_change_their_scale_alone() -> None:
    """As is a class without images."""
    covariance = within_class(lambda: [(torch.ones(10, 4), torch.zeros(10, dtype=torch.int64))], 4, 2, World())
    assert torch.allclose(whitening(covariance, 0.25).into, 2.0 * torch.eye(4))
