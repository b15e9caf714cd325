"""Memory that a training step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import logging
from contextlib import suppress

log = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""As <malloc.h> of the GNU C library numbers them; mallopt(3)."""
LARGEST_KEPT = 32 * 2**20
"""Bytes; the most that the GNU C library takes for M_MMAP_THRESHOLD."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells the C library to reuse freed blocks of up to LARGEST_KEPT bytes instead of giving them back; says whether
    it knows how. For a process that trains on a processor.

    The GNU C library gives large blocks back when they are freed, depending on how they happen to lie, and then a step,
    whose activations are such blocks, has the kernel clear all their pages again: 4 to 14% of a ResNet's processor time
    at 64 px. What a process has at most does not change by it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.info("this C library has no mallopt: freed memory is given back as it sees fit")
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, NEVER))


def give_back_freed_memory() -> None:
    """Gives freed blocks back once: what comes next needs others. Nothing where the C library does not know how."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
