"""How a process that serves for a long time treats its memory: once, after its start.

Decides two things. What the start made stays, so the garbage collector need not look at it again. And the C library
gives blocks of BLOCK_BYTES and more back to the system when they are freed: left alone it raises that limit to 32 MB
at the first large block, and one list of 150,000 objects would stay in the process for ever.

Spec: mallopt(3), M_MMAP_THRESHOLD; Python's gc.freeze.
"""

from __future__ import annotations

import gc

BLOCK_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3


def settle_memory() -> None:
    """Call after the start. Idempotent; does nothing about blocks where the C library has no mallopt."""
    import ctypes

    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES)
