"""Long work on many objects, in slices between which the event loop serves other requests.

Objects of the watch cache never change, so a list of them that was taken at one revision stays one while others run;
who works in slices takes everything that depends on the revision before the first one.

Invariant: the work of one slice of SLICE_OBJECTS takes about 10 ms at most (a row of a table of pods costs 0.04 ms).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

SLICE_OBJECTS = 200
T = TypeVar("T")


def slices(objects: Sequence[T], size: int = SLICE_OBJECTS) -> Iterator[Sequence[T]]:
    """Yield the objects in pieces. The caller lets others run (`asyncio.sleep(0)`) between two of them."""
    if len(objects) <= size:
        yield objects
        return
    for start in range(0, len(objects), size):
        yield objects[start : start + size]
