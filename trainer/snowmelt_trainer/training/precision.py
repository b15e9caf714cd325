"""Which arithmetic the forward and backward pass use, and how images lie in memory."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import Tensor, nn

from snowmelt_trainer.backbones.types import Preprocessing
from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.convolution import IMAGES, as_maps, multiply_small_maps, pixels_of
from snowmelt_trainer.training.distributed import World
from snowmelt_trainer.training.pooling import keep_little_of_pools

LARGE = 1 << 20
"""Bytes of a parameter of which it is worth holding little in BFloat16."""
SIDE, PRODUCTS = 512, 16
"""Of the matrices that are multiplied to compare precisions, and how often: some 60 ms in all on a slow core."""


def choose_precision(wanted: Precision, world: World, model: nn.Module) -> Precision:
    """What `Auto` means here: BFloat16 where every worker's hardware is faster with it, else Float32.

    That is so on CUDA devices of compute capability 8.0 and above, and on processors that know the format if a matrix
    product proves it: of those with AVX512-BF16 some take half of float32's time, others twice as long, for the whole
    step as for the product. Processors keep Float32 for a network that has grouped convolutions (depthwise ones, too):
    their gradients have no fast kernel. docs/design/20261127-precision-on-processors.md has what was measured.
    """
    if wanted is not Precision.AUTO:
        return wanted
    return Precision.BFLOAT16 if world.minimum(_is_faster(world.device, model)) else Precision.FLOAT32


def _is_faster(device: torch.device, model: nn.Module) -> bool:
    """Whether this worker trains the model faster in BFloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())
    known = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if grouped or not known:
        return False
    seconds = product_seconds()
    return seconds[torch.bfloat16] < seconds[torch.float32]


@lru_cache(maxsize=1)
def product_seconds() -> dict[torch.dtype, float]:
    """What one matrix product takes a processor in either type: the best of some, in this process once. The two lie a
    factor of two or more apart, so that an attempt that resumes decides as the one before; they take turns, so that
    whatever else keeps the processor busy for some milliseconds hits both."""
    squares = {dtype: torch.ones((SIDE, SIDE), dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    least = dict.fromkeys(squares, float("inf"))
    with torch.inference_mode():
        for _ in range(PRODUCTS):
            for dtype, square in squares.items():
                began = time.perf_counter()
                torch.mm(square, square)
                least[dtype] = min(least[dtype], time.perf_counter() - began)
    return least


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in the precision chosen; parameters stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.BFLOAT16)


def place_model(model: nn.Module, device: torch.device) -> None:
    """Moves the model to the device, its convolutions in channels_last, for which the fastest kernels are; on a
    processor, those of small maps are made matrix products, and max pools keep little."""
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu":
        multiply_small_maps(model)
        keep_little_of_pools(model)


def place(inputs: Tensor, device: torch.device, preprocessing: Preprocessing) -> Tensor:
    """What a network takes, on its device: pixels (uint8) normalised to float32, images and feature maps in
    channels_last, all else as it is.

    Pixels travel as bytes, a quarter of what they become, and are normalised a batch at a time, where that is fast.
    """
    there = inputs.to(device, non_blocking=True)
    if there.dim() != IMAGES:
        return there
    if there.dtype is not torch.uint8:
        # Maps of one pixel may have any stride, and torch chooses its kernels by them: these are what a network gives.
        return as_maps(pixels_of(there), there.shape)
    scale, shift = _normalization(preprocessing, device)
    return there.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


@lru_cache(maxsize=4)
def _normalization(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand, (1, 3, 1, 1) each, which bring a byte to (byte / 255 - mean) / std."""
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std)
        )
        return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)
