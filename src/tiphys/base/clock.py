"""Time and randomness as parameters.

Everything that asks "what time is it" takes a `Clock`, everything that draws a name, a uid or a jitter takes a
`Randomness`; this module and nothing else reads the machine's. Sleeping is always `asyncio.sleep` or a loop timer, so
a virtual-time event loop moves it; `LoopClock` tells the time of such a loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

# Kubernetes draws generated suffixes from letters and digits that form no words and look unlike each other.
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


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

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()


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


class Randomness:
    """Names, uids and jitter from one seedable source. `seed` None means the machine's entropy."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    def suffix(self, length: int = 5) -> str:
        """Return a suffix for generateName and for pods of a controller."""
        return "".join(self._random.choices(SUFFIX_ALPHABET, k=length))

    def uid(self) -> str:
        """Return a random (version 4) UUID as text."""
        bits = self._random.getrandbits(128)
        bits = (bits & ~(0xF << 76)) | (4 << 76)
        bits = (bits & ~(0x3 << 62)) | (2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def integer(self, low: int, high: int) -> int:
        """Return an integer between `low` and `high`, both included."""
        return self._random.randint(low, high)


def format_time(unix_s: float) -> str:
    """Return `metav1.Time` text: RFC 3339 in UTC with whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def format_micro_time(unix_s: float) -> str:
    """Return `metav1.MicroTime` text: RFC 3339 in UTC with six digits of the second."""
    micros = round(unix_s * 1e6)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(micros // 1_000_000))}.{micros % 1_000_000:06d}Z"


def parse_time(text: str) -> float:
    """Return seconds since the epoch of RFC 3339 text (any offset, any fraction). Raises ValueError."""
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
