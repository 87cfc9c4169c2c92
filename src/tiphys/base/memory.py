"""How a process that serves for a long time treats its memory.

Decides three things. What the start made stays, so the garbage collector need not look at it again. And the C library
takes blocks of BLOCK_BYTES and more from the system and gives them back when they are freed: left alone it raises that
limit to 32 MB at the first large block, and one list of 150,000 objects would stay in the process for ever. The limit is
the size of the buffer that uvloop keeps for each TLS connection and hardly uses: taken from the heap, a thousand of them
would keep 250 MB of what others have freed. And what is kept is kept in blocks of its own size: encoders return bytes
in blocks that are several times larger.

Spec: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; Python's gc.freeze.
"""

from __future__ import annotations

import gc

BLOCK_BYTES = 256 * 1024
_KEPT_BYTES = 4 * 1024 * 1024
"""Free memory at the end of the heap that is not given back: it would be taken again for the next answer."""
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1


def limit_blocks() -> None:
    """Call before connections are made; children inherit it. Does nothing where the C library has no mallopt."""
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def settle_memory() -> None:
    """Call after the start. Idempotent."""
    gc.freeze()
    limit_blocks()


def trimmed(data: bytes) -> bytes:
    """Return the same bytes in a block of their size: for what an encoder made and is to be kept."""
    return bytes(memoryview(data))
