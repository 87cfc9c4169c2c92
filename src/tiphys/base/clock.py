"""Time and randomness as parameters.

Everything that asks "what time is it" takes a `Clock`, everything that draws a name, a uid or a jitter takes a
`Randomness`; this module and nothing else reads the machine's. Sleeping is always `asyncio.sleep` or a loop timer, so
a virtual-time event loop moves it; `LoopClock` tells the time of such a loop.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import lru_cache
from typing import Protocol

# Kubernetes draws generated suffixes from letters and digits that form no words and look unlike each other.
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
ENTROPY_BLOCK_BYTES = 4096


class Clock(Protocol):
    """Tells wall time and monotonic time, both in seconds."""

    def now_s(self) -> float:
        """Return seconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start that never go backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    now_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)


class LoopClock:
    """The running event loop's time; wall time starts at `epoch_s`. For simulation on a virtual-time loop."""

    def __init__(self, epoch_s: float = 1_767_225_600.0) -> None:
        self._epoch_s = epoch_s

    def now_s(self) -> float:
        return self._epoch_s + self.monotonic_s()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class ManualClock:
    """A clock that a unit test sets by hand."""

    def __init__(self, now_s: float = 1_767_225_600.0) -> None:
        self.current_s = now_s

    def now_s(self) -> float:
        return self.current_s

    def monotonic_s(self) -> float:
        return self.current_s


class _Entropy(random.SystemRandom):
    """The machine's entropy, fetched a block at a time: a system call costs more than a uid. A child of fork drops the
    block, so that it never draws what its parent draws."""

    def __init__(self) -> None:
        self._block = b""
        self._at = self._generation = 0
        super().__init__()

    def random(self) -> float:
        return (int.from_bytes(self._take(7)) >> 3) * 2.0**-53

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        return int.from_bytes(self._take(size)) >> (size * 8 - k)

    def _take(self, size: int) -> bytes:
        start = self._at
        self._at += size
        if self._at > len(self._block) or self._generation != _generation:
            self._block, self._generation = os.urandom(max(ENTROPY_BLOCK_BYTES, size)), _generation
            start, self._at = 0, size
        return self._block[start : self._at]


_generation = 0
"""How many forks lie between this process and the first one."""


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)


class Randomness:
    """Names, uids and jitter from one seedable source. `seed` None means the machine's entropy."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = _Entropy() if seed is None else random.Random(seed)

    def suffix(self, length: int = 5) -> str:
        """Return a suffix for generateName and for pods of a controller."""
        if not isinstance(self._random, _Entropy):
            return "".join(self._random.choices(SUFFIX_ALPHABET, k=length))
        drawn, letters = self._random.getrandbits(25 + 5 * length), []
        for _ in range(length):
            drawn, letter = divmod(drawn, len(SUFFIX_ALPHABET))
            letters.append(SUFFIX_ALPHABET[letter])
        return "".join(letters)

    def uid(self) -> str:
        """Return a random (version 4) UUID as text."""
        bits = self._random.getrandbits(128)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[bits >> 60 & 3]}{text[17:20]}-{text[20:]}"

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        """Return an integer between `low` and `high`, both included."""
        return self._random.randint(low, high)


def format_time(unix_s: float) -> str:
    """Return `metav1.Time` text: RFC 3339 in UTC with whole seconds."""
    return _format_second(int(unix_s // 1))


@lru_cache(maxsize=256)
def _format_second(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def format_micro_time(unix_s: float) -> str:
    """Return `metav1.MicroTime` text: RFC 3339 in UTC with six digits of the second."""
    micros = round(unix_s * 1e6)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(micros // 1_000_000))}.{micros % 1_000_000:06d}Z"


def parse_time(text: str) -> float:
    """Return seconds since the epoch of RFC 3339 text (any offset, any fraction). Raises ValueError."""
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
