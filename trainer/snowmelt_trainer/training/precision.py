"""Which arithmetic the forward and backward pass use."""

from __future__ import annotations

import torch

from snowmelt_trainer.contract.optimization import Precision
from snowmelt_trainer.training.distributed import World


def choose_precision(wanted: Precision, world: World) -> Precision:
    """What `Auto` means here: BFloat16 where every worker's hardware computes it natively, else Float32.

    Natively: CUDA devices of compute capability 8.0 and above; CPUs with AMX tiles. AVX512-BF16 alone does not count,
    because what it gains depends on the network: it was measured to be slower than float32 for small convolutions, and
    1.6 times as fast (1.8 in channels_last) for a ResNet-18 on 32 images of 64 px. There it has to be asked for.
    """
    if wanted is not Precision.AUTO:
        return wanted
    return Precision.BFLOAT16 if world.minimum(_is_native(world.device)) else Precision.FLOAT32


def _is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions run in the precision chosen; parameters stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.BFLOAT16)
