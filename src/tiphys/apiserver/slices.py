"""Long work on many objects, in slices between which the event loop serves other requests.

Objects of the watch cache never change, so a list of them that was taken at one revision stays one while others run;
who works in slices takes everything that depends on the revision before the first one.

Invariant: the work of one slice takes about 10 ms at most: SLICE_OBJECTS of usual size (a row of a table of pods costs
0.04 ms), or fewer large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from tiphys.wire.message import Sink

SLICE_OBJECTS = 200
SLICE_BYTES = 2 * 1024 * 1024
"""Stored bytes of objects that are copied in one slice."""
DECODED_SLICE_BYTES = 256 * 1024
"""Stored bytes of objects that are decoded in one slice, to be encoded otherwise."""
ENCODED_SLICE_BYTES = 64 * 1024
"""The same where Python encodes, field by field."""
TAKE_S = 120.0
"""How long a client may take for one slice: what is still to be sent is held for it."""
T = TypeVar("T")


class Stored(Protocol):
    """An object with its stored bytes."""

    @property
    def value(self) -> bytes: ...


S = TypeVar("S", bound=Stored)


def slices(objects: Sequence[T], size: int = SLICE_OBJECTS) -> Iterator[Sequence[T]]:
    """Yield the objects in pieces. The caller lets others run (`asyncio.sleep(0)`) between two of them."""
    if len(objects) <= size:
        yield objects
        return
    for start in range(0, len(objects), size):
        yield objects[start : start + size]


def is_one_slice(objects: Sequence[Stored], limit_bytes: int) -> bool:
    """Tell whether the objects may be worked on at once."""
    return len(objects) <= SLICE_OBJECTS and sum([len(obj.value) for obj in objects]) <= limit_bytes


def weighed_slices(objects: Sequence[S], limit_bytes: int = SLICE_BYTES) -> Iterator[Sequence[S]]:
    """Yield the objects in pieces of at most SLICE_OBJECTS and, unless one alone has more, so many stored bytes.

    The first piece comes in any case, be it empty."""
    for some in slices(objects):
        if sum([len(obj.value) for obj in some]) <= limit_bytes:
            yield some
            continue
        start = size_bytes = 0
        for at, obj in enumerate(some):
            if size_bytes and size_bytes + len(obj.value) > limit_bytes:
                yield some[start:at]
                start, size_bytes = at, 0
            size_bytes += len(obj.value)
        yield some[start:] if start else some


async def work_on(objects: Sequence[S], limit_bytes: int, work: Callable[[Sequence[S]], T]) -> T:
    """Do the work of one slice of `weighed_slices`: in a thread if it is one object that is larger than a slice."""
    if len(objects) == 1 and len(objects[0].value) > limit_bytes:
        return await asyncio.to_thread(work, objects)
    return work(objects)


async def take_turns(sink: Sink) -> None:
    """Let others run, and wait until a client has taken what it was sent. Raises TimeoutError after TAKE_S."""
    await asyncio.sleep(0)
    async with asyncio.timeout(TAKE_S):
        await sink.drain()
