"""What is asked of an accelerator besides computing; on a processor there is nothing to ask."""

from __future__ import annotations

import torch


def has_room(device: torch.device, size: int, share: float) -> bool:
    """Whether `size` bytes take at most this share of an accelerator's free memory; never on a processor."""
    return device.type == "cuda" and size <= share * torch.cuda.mem_get_info(device)[0]


def settle(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
