"""Random numbers as a function of where they are needed, never of what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*where: int) -> int:
    """A 63-bit seed from (seed, stage, epoch, step, rank) or any other place; different places give unrelated seeds."""
    data = b",".join(str(part).encode() for part in where)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def seed_dropout(*where: int) -> None:
    """Seeds torch's default generators, which dropout and stochastic depth draw from."""
    torch.manual_seed(derive_seed(*where))
