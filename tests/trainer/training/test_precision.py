"""Which arithmetic a machine and a network get, and how images lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.transforms import v2

from snowmelt_trainer.backbones.network import build_network
from snowmelt_trainer.backbones.types import IMAGENET_PREPROCESSING
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training import precision
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import choose_precision, place, place_model, product_seconds

CPU = torch.device("cpu")


def placed(inputs: torch.Tensor) -> torch.Tensor:
    return place(inputs, CPU, IMAGENET_PREPROCESSING)


@pytest.fixture(params=["amx", "avx512", "slow avx512", "neither"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the processor says that it can do, and how fast it is then."""
    seconds = {torch.float32: 1.0, torch.bfloat16: 2.0 if request.param == "slow avx512" else 0.5}
    monkeypatch.setattr(precision, "product_seconds", lambda: seconds)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: request.param == "amx")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param != "neither")
    return str(request.param)


@pytest.mark.parametrize(
    ("architecture", "fast_with"),
    [("resnet18", {"amx", "avx512"}), ("vit_b_32", {"amx", "avx512"}), ("mobilenet_v3_small", set())],
)
def test_bfloat16_is_taken_where_processor_and_network_are_fast_with_it(
    processor: str, architecture: str, fast_with: set[str]
) -> None:
    with torch.device("meta"):
        model = build_network(architecture, image_size=64)
    expected = Precision.BFLOAT16 if processor in fast_with else Precision.FLOAT32
    assert choose_precision(Precision.AUTO, World(), model) is expected
    assert choose_precision(Precision.FLOAT32, World(), model) is Precision.FLOAT32


def test_a_product_is_timed_once_in_a_process() -> None:
    seconds = product_seconds()
    assert seconds is product_seconds()
    assert all(0.0 < seconds[dtype] < float("inf") for dtype in (torch.float32, torch.bfloat16))


@pytest.mark.parametrize("architecture", ["resnet18", "shufflenet_v2_x0_5", "swin_t", "squeezenet1_1"])
def test_how_images_lie_in_memory_changes_no_result(architecture: str) -> None:
    torch.manual_seed(0)
    model, images = build_network(architecture, image_size=64).eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        place_model(model, torch.device("cpu"))
        after = model(placed(images))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_convolutions_and_images_lie_channels_last_and_features_as_they_are() -> None:
    model = build_network("resnet18", image_size=64)
    place_model(model, torch.device("cpu"))
    assert model.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)
    assert placed(torch.randn(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    assert placed(torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)).is_contiguous(memory_format=torch.channels_last)
    assert placed(torch.randn(2, 5)).is_contiguous()


def test_pixels_are_normalised_as_torchvision_does_it_and_features_are_not() -> None:
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    preprocessing = IMAGENET_PREPROCESSING
    expected = v2.functional.normalize(pixels.float() / 255, list(preprocessing.mean), list(preprocessing.std))
    torch.testing.assert_close(placed(pixels), expected, rtol=1e-6, atol=1e-6)
    assert placed(pixels).dtype is torch.float32
    features = torch.randn(2, 3, 8, 8)
    assert torch.equal(placed(features), features)


def test_pixels_placed_for_evaluation_first_can_be_trained_on_afterwards() -> None:
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    other = replace(IMAGENET_PREPROCESSING, mean=(0.5, 0.5, 0.25))
    with torch.inference_mode():
        place(pixels, CPU, other)
    layer = torch.nn.Conv2d(3, 4, 3)
    layer(place(pixels, CPU, other)).sum().backward()
    assert layer.weight.grad is not None
