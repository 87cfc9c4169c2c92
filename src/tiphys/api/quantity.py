"""Quantities: the fixed-point numbers of resources (`500m`, `1Gi`, `1e3`), exact.

A quantity is a whole number of nanos and the family of suffixes that its text used, which decides how it is printed.
Finer digits round away from zero, values beyond 64 bits are capped, as upstream does. `canonical` is what the server
stores and shows: `1024Mi` becomes `1Gi`, `0.5` becomes `500m`.

Spec: Kubernetes API reference, "Quantity"; the serialisation rules are in its description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering

NANOS = 10**9
MAX_VALUE = 2**63 - 1

DECIMAL_SI = "DecimalSI"
BINARY_SI = "BinarySI"
DECIMAL_EXPONENT = "DecimalExponent"

FORMAT_MESSAGE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NUMERIC_MESSAGE = "unable to parse numeric part of quantity"
SUFFIX_MESSAGE = "unable to parse quantity's suffix"

_PARTS = re.compile(r"([+-]?)([0-9]*)(?:(\.)([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()} | {0: ""}


Written = str | int | float
"""A quantity as JSON has it."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact quantity. Equality and order look at the value alone, not at the format."""

    nanos: int
    format: str = DECIMAL_SI

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    @property
    def milli(self) -> int:
        """Thousandths, rounded up."""
        return -(-self.nanos // 1_000_000)

    def value(self) -> int:
        """Whole units, rounded up."""
        return -(-self.nanos // NANOS)

    def __str__(self) -> str:
        return format_quantity(self)


def _scale(suffix: str) -> tuple[int, int, str]:
    """Return (power of ten, power of 1024, format) of a suffix. Raises ValueError."""
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], 0, DECIMAL_SI
    if suffix in _BINARY:
        return 0, _BINARY[suffix], BINARY_SI
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None or len(exponent[1]) > 10:
        raise ValueError(SUFFIX_MESSAGE)
    return int(exponent[1]), 0, DECIMAL_EXPONENT


@lru_cache(maxsize=8192, typed=True)
def parse_quantity(text: Written) -> Quantity:
    """Return the quantity of a text or of a JSON number. Raises ValueError in upstream's words."""
    if not isinstance(text, str):
        text = str(text)
    text = text.strip()
    parts = _PARTS.fullmatch(text)
    if not text or parts is None:
        raise ValueError(FORMAT_MESSAGE)
    sign, whole, _, fraction, suffix = parts.groups()
    fraction = fraction or ""
    ten, power, format_ = _scale(suffix)
    if not whole and not fraction:
        raise ValueError(NUMERIC_MESSAGE)
    nanos = _to_nanos(int(whole + fraction), ten - len(fraction), power)
    if format_ == BINARY_SI and 0 < nanos < NANOS:
        format_ = DECIMAL_SI
    nanos = min(nanos, MAX_VALUE * NANOS)
    return Quantity(-nanos if sign == "-" else nanos, format_)


def _to_nanos(digits: int, ten: int, power: int) -> int:
    """Return digits * 10**ten * 1024**power in nanos, rounded up. Bounded: huge exponents are not computed."""
    if digits == 0:
        return 0
    ten += 9
    if ten > 64:
        return MAX_VALUE * NANOS
    if ten >= 0:
        return int(digits * 10**ten * 1024**power)
    if -ten > len(str(digits)) + 64:
        return 1
    return int(-(-digits * 1024**power // 10**-ten))


def format_quantity(quantity: Quantity) -> str:
    """Return the canonical text: the largest suffix that leaves a whole number."""
    nanos = quantity.nanos
    sign = "-" if nanos < 0 else ""
    nanos = abs(nanos)
    if quantity.format == BINARY_SI and nanos >= 1024 * NANOS and nanos % NANOS == 0:
        number, power = nanos // NANOS, 0
        while power < 6 and number % 1024 == 0:
            number //= 1024
            power += 1
        return f"{sign}{number}{_BINARY_SUFFIX[power]}"
    if nanos == 0:
        return "0"
    exponent = -9
    while exponent < 18 and nanos % 1000 == 0:
        nanos //= 1000
        exponent += 3
    if quantity.format == DECIMAL_EXPONENT:
        return f"{sign}{nanos}e{exponent}" if exponent else f"{sign}{nanos}"
    return f"{sign}{nanos}{_DECIMAL_SUFFIX[exponent]}"


@lru_cache(maxsize=8192)
def _canonical_text(text: str) -> str:
    return format_quantity(parse_quantity(text))


def canonical_quantity(value: Written) -> str:
    """Return the canonical text of a quantity. Raises ValueError in upstream's words."""
    return _canonical_text(value if isinstance(value, str) else str(value))


@lru_cache(maxsize=8192, typed=True)
def cpu_milli(text: Written) -> int:
    """Return the thousandths of a CPU, rounded up. Raises ValueError."""
    return parse_quantity(text).milli


@lru_cache(maxsize=8192, typed=True)
def memory_bytes(text: Written) -> int:
    """Return the bytes (or any other whole units), rounded up. Raises ValueError."""
    return parse_quantity(text).value()
