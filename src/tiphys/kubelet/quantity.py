"""Read and write resource quantities as the kubelet needs them: exact numbers in, canonical text out.

Spec: Kubernetes docs, "Resource units" and the quantity format of the API (suffixes m, k, M, ..., Ki, Mi, ..., e3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

Quantity = str | int | float

_SUFFIXES: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)},
    **{suffix + "i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", 1)},
}


@lru_cache(4096)
def parse_quantity(value: Quantity) -> Fraction:
    """Return the exact number. Raises ValueError for text that is no quantity."""
    text = str(value).strip()
    digits = text.rstrip("numkMGTPEKi")
    suffix = text[len(digits) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a resource quantity; write a number with a suffix such as m, Mi or G")
    return Fraction(digits) * _SUFFIXES[suffix]


def cpu_milli(quantities: Mapping[str, Quantity]) -> int:
    """Return the `cpu` of a resource list in thousandths of a core, rounded up."""
    return math.ceil(parse_quantity(quantities.get("cpu", 0)) * 1000)


def memory_bytes(quantities: Mapping[str, Quantity]) -> int:
    """Return the `memory` of a resource list in bytes."""
    return math.ceil(parse_quantity(quantities.get("memory", 0)))


def scaled(value: Fraction, divisor: Quantity | None) -> int:
    """Return value / divisor rounded up, for resourceFieldRef. A divisor of 0 or None counts as 1."""
    unit = parse_quantity(divisor) if divisor is not None else Fraction(1)
    return math.ceil(value / (unit or Fraction(1)))
