from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.contract import Reason
from snowmelt_trainer.contract.data import Augmentation
from snowmelt_trainer.data import SampleSet, held
from snowmelt_trainer.data.dataset import ImageDataset
from snowmelt_trainer.data.loading import EvaluationLoader, TrainingLoader
from snowmelt_trainer.data.transforms import Draw, View, resolve
from snowmelt_trainer.errors import RunError

STRONG = View(16, IMAGENET_PREPROCESSING, Augmentation.STRONG, seed=5)
Paint = Callable[..., Path]


@pytest.fixture
def samples(tmp_path: Path, paint: Paint) -> SampleSet:
    return SampleSet(
        tuple(str(paint(tmp_path / f"{i}.png", (24, 24))) for i in range(11)), tuple(i % 3 for i in range(11))
    )


def loader(samples: SampleSet, *, rank: int = 0, world: int = 1, view: View = STRONG) -> TrainingLoader:
    return TrainingLoader(ImageDataset(samples, view), seed=7, global_batch=4, rank=rank, world=world)


def by_sample(batches: list[tuple[Tensor, Tensor, Tensor]]) -> dict[int, Tensor]:
    return {int(i): image for images, _, ids in batches for image, i in zip(images, ids, strict=True)}


def same(one: dict[int, Tensor], other: dict[int, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)


def test_an_epoch_is_the_same_over_one_two_and_three_workers(samples: SampleSet) -> None:
    alone = by_sample(list(loader(samples).epoch(1, 2)))
    assert len(alone) == 11
    for world in (2, 3):
        shares = [by_sample(list(loader(samples, rank=rank, world=world).epoch(1, 2))) for rank in range(world)]
        assert same(alone, {i: image for share in shares for i, image in share.items()})


def test_an_epoch_resumed_at_any_step_goes_on_as_if_nothing_had_happened(samples: SampleSet) -> None:
    whole = list(loader(samples).epoch(0, 3))
    for step in range(len(whole) + 1):
        rest = list(loader(samples).epoch(0, 3, start_step=step))
        assert len(rest) == len(whole) - step
        assert all(
            torch.equal(a, b)
            for one, other in zip(rest, whole[step:], strict=True)
            for a, b in zip(one, other, strict=True)
        )


def test_a_file_lost_after_the_inspection_is_named(samples: SampleSet) -> None:
    Path(samples.paths[4]).unlink()
    with pytest.raises(RunError, match=r"4\.png") as caught:
        list(loader(samples).epoch(0, 0))
    assert caught.value.reason is Reason.DATA_NOT_FOUND


def plain_image(samples: SampleSet, i: int) -> Tensor:
    """(3, 16, 16), as it lies in the file."""
    return torch.from_numpy(ImageDataset(samples, STRONG).square(i))


def seen(samples: SampleSet, view: View, draw: Draw) -> Tensor:
    """The image as a worker gets it."""
    ((images, _, _),) = loader(samples, view=view).load([[draw]])
    return images[0]


@pytest.mark.parametrize("level", [Augmentation.LIGHT, Augmentation.STANDARD, Augmentation.STRONG])
def test_augmentation_follows_from_seed_stage_epoch_and_sample(samples: SampleSet, level: Augmentation) -> None:
    view = View(16, IMAGENET_PREPROCESSING, level, seed=5)
    once = seen(samples, view, Draw(1, 0, 0))
    torch.manual_seed(99)
    assert torch.equal(once, seen(samples, view, Draw(1, 0, 0)))
    assert not torch.equal(once, seen(samples, view, Draw(1, 0, 1)))
    assert not torch.equal(once, seen(samples, view, Draw(1, 1, 0)))
    assert not torch.equal(once, seen(samples, replace(view, seed=6), Draw(1, 0, 0)))
    assert once.shape == (3, 16, 16)
    assert once.dtype == torch.uint8


def test_augmentation_leaves_the_stream_of_dropout_alone(samples: SampleSet) -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    seen(samples, STRONG, Draw(0, 0, 0))
    assert torch.equal(torch.rand(3), undisturbed)


def test_evaluation_and_augmentation_none_see_the_plain_image(samples: SampleSet) -> None:
    plain = plain_image(samples, 2)
    ((varied_level, _, _),) = EvaluationLoader(ImageDataset(samples, STRONG), batch=11, rank=0, world=1)
    assert torch.equal(varied_level[2], plain)
    assert torch.equal(seen(samples, View(16, IMAGENET_PREPROCESSING), Draw(2, 0, 0)), plain)
    assert plain.min() < 0.3 * 255
    assert plain.max() > 0.7 * 255


def test_draws_of_several_epochs_are_no_batch(samples: SampleSet) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        list(loader(samples).load([[Draw(0, 0, 0), Draw(1, 0, 1)]]))


def with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor plays an accelerator that has room for all images."""
    monkeypatch.setattr(held, "has_room", lambda device, size, share: True)


@pytest.mark.parametrize("level", [Augmentation.NONE, Augmentation.STANDARD, Augmentation.STRONG])
def test_images_held_on_the_device_are_those_that_would_be_loaded(
    samples: SampleSet, monkeypatch: pytest.MonkeyPatch, level: Augmentation
) -> None:
    view = View(16, IMAGENET_PREPROCESSING, level, seed=5)
    expected = [by_sample(list(loader(samples, view=view).epoch(0, epoch))) for epoch in range(3)]
    with_room(monkeypatch)
    holding = loader(samples, view=view)
    assert all(same(by_sample(list(holding.epoch(0, epoch))), expected[epoch]) for epoch in range(3))


def test_what_is_held_is_never_loaded_again(samples: SampleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch)
    dataset = ImageDataset(samples, View(16, IMAGENET_PREPROCESSING, Augmentation.LIGHT), kept_bytes=0)
    training = TrainingLoader(dataset, seed=7, global_batch=4, rank=0, world=1)
    validation = EvaluationLoader(dataset, batch=4, rank=0, world=1)
    first = by_sample(list(training.epoch(0, 0)))
    with torch.inference_mode():
        before = by_sample(list(validation))
    for path in samples.paths:
        Path(path).unlink()
    assert same(by_sample(list(training.epoch(0, 0))), first)
    assert same(by_sample(list(validation)), before)


@pytest.mark.parametrize("level", [Augmentation.NONE, Augmentation.STRONG])
@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_as_many_decoded_images_stay_in_memory_as_may(samples: SampleSet, level: Augmentation, kept: int) -> None:
    view = View(16, IMAGENET_PREPROCESSING, level, seed=5)
    training = TrainingLoader(
        ImageDataset(samples, view, kept_bytes=kept * 3 * 16 * 16), seed=7, global_batch=4, rank=0, world=1
    )
    first = by_sample(list(training.epoch(0, 0)))
    assert same(by_sample(list(training.epoch(0, 0))), first)
    assert same(by_sample(list(loader(samples, view=view).epoch(0, 0))), first)
    for path in samples.paths:
        Path(path).unlink()
    assert [i for i in range(11) if readable(training, i)] == list(range(min(11, kept)))


def test_a_batch_is_put_together_of_what_is_held_and_what_is_not(samples: SampleSet) -> None:
    view = View(16, IMAGENET_PREPROCESSING)
    some = TrainingLoader(ImageDataset(samples, view, kept_bytes=5 * 768), seed=7, global_batch=4, rank=0, world=1)
    list(some.load([[0, 3]]))
    ((images, labels, ids),) = some.load([[7, 3, 9, 0]])
    assert torch.equal(images, torch.stack([plain_image(samples, i) for i in (7, 3, 9, 0)]))
    assert (labels.tolist(), ids.tolist()) == ([1, 0, 0, 0], [7, 3, 9, 0])


def readable(training: TrainingLoader, i: int) -> bool:
    try:
        return len(list(training.load([[Draw(i, 0, 0)]]))) == 1
    except RunError:
        return False


def test_evaluation_batches_hold_each_sample_once_over_all_workers(samples: SampleSet) -> None:
    dataset = ImageDataset(samples, STRONG)
    for world in (1, 2, 3):
        shares = [EvaluationLoader(dataset, batch=2, rank=rank, world=world) for rank in range(world)]
        for _ in range(2):
            batches = [batch for share in shares for batch in share]
            assert sorted(int(i) for _, _, ids in batches for i in ids) == list(range(11))
            assert all(
                samples.labels[int(i)] == int(label)
                for _, labels, ids in batches
                for i, label in zip(ids, labels, strict=True)
            )


def test_a_worker_without_a_sample_in_a_step_gets_an_empty_batch(samples: SampleSet) -> None:
    few = samples.take([0, 1])
    images, labels, ids = next(loader(few, rank=2, world=3).epoch(0, 0))
    assert (images.shape, labels.shape, ids.shape) == ((0, 3, 16, 16), (0,), (0,))


def test_auto_is_light_for_few_images_and_standard_for_many() -> None:
    assert [resolve(Augmentation.AUTO, n) for n in (999, 1000)] == [Augmentation.LIGHT, Augmentation.STANDARD]
    assert resolve(Augmentation.NONE, 10**6) is Augmentation.NONE
