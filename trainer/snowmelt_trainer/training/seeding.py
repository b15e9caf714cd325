"""Random numbers as a function of where they are needed, never of what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*where: int) -> int:
    """A 63-bit seed from (seed, stage, epoch, step, rank) or any other place; different places give unrelated seeds."""
    data = b",".join(str(part).encode() for part in where)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def seed_dropout(*where: int) -> None:
    """Seeds torch's default generators, which dropout and stochastic depth draw from, as `torch.manual_seed` does.

    That function also notes, with a stack trace each, what CUDA, MPS and XPU are to do should they be used later: 100
    microseconds of a step that takes few milliseconds when a head is trained on kept activations.
    """
    seed = derive_seed(*where)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
