"""What is kept takes the memory of its bytes, not of what an encoder reserved."""

from __future__ import annotations

import ctypes
import sys

import orjson
import pytest

from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.registry import encode_stored
from tiphys.base.memory import trimmed

libc = ctypes.CDLL(None)
SLACK_BYTES = 64


def block_bytes(data: bytes) -> int:
    """Return how large the C library's block is that holds some bytes (more than 512, so that it is one)."""
    libc.malloc_usable_size.restype = ctypes.c_size_t
    return int(libc.malloc_usable_size(ctypes.c_void_p(id(data))))


@pytest.mark.skipif(not hasattr(libc, "malloc_usable_size"), reason="the C library does not tell how large blocks are")
@pytest.mark.parametrize("size", [600, 1000, 5000, 100_000])
def test_stored_bytes_take_no_more_memory_than_they_are_long(size: int) -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": "x" * size}}
    shown = CachedObject("/registry/core/configmaps/a", "", "a", encode_stored(obj), 1)
    for kept in (trimmed(orjson.dumps(obj)), shown.value):
        assert orjson.loads(kept) == obj
        assert block_bytes(kept) <= sys.getsizeof(kept) + SLACK_BYTES
