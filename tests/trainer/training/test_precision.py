"""Which arithmetic a machine and a network get, and how images lie."""

from __future__ import annotations

import pytest
import torch

from snowmelt_trainer.backbones.network import build_network
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.precision import choose_precision, place, place_model


@pytest.fixture(params=["amx", "avx512", "neither"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the processor says that it can do."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: request.param == "amx")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param in {"amx", "avx512"})
    return str(request.param)


@pytest.mark.parametrize(
    ("architecture", "fast_with"),
    [("resnet18", {"amx", "avx512"}), ("vit_b_32", {"amx", "avx512"}), ("mobilenet_v3_small", {"amx"})],
)
def test_bfloat16_is_taken_where_processor_and_network_are_fast_with_it(
    processor: str, architecture: str, fast_with: set[str]
) -> None:
    with torch.device("meta"):
        model = build_network(architecture, image_size=64)
    expected = Precision.BFLOAT16 if processor in fast_with else Precision.FLOAT32
    assert choose_precision(Precision.AUTO, World(), model) is expected
    assert choose_precision(Precision.FLOAT32, World(), model) is Precision.FLOAT32


@pytest.mark.parametrize("architecture", ["resnet18", "shufflenet_v2_x0_5", "swin_t", "squeezenet1_1"])
def test_how_images_lie_in_memory_changes_no_result(architecture: str) -> None:
    torch.manual_seed(0)
    model, images = build_network(architecture, image_size=64).eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        place_model(model, torch.device("cpu"))
        after = model(place(images, torch.device("cpu")))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_convolutions_and_images_lie_channels_last_and_features_as_they_are() -> None:
    model = build_network("resnet18", image_size=64)
    place_model(model, torch.device("cpu"))
    assert model.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)
    assert place(torch.randn(2, 3, 8, 8), torch.device("cpu")).is_contiguous(memory_format=torch.channels_last)
    assert place(torch.randn(2, 5), torch.device("cpu")).is_contiguous()
