"""How many seats each priority level has: nominal limits from shares, and what levels lend each other by their need.

Pure functions over numbers. Invariant: current limits add up to no more than the server's seats plus rounding, and none
leaves the range that its level's lending and borrowing allow.

Spec: Kubernetes documentation, "API Priority and Fairness: Concepts" (seats borrowed by a priority level); KEP-1040,
"Dispatching" (borrowing). DIFFERS: need is the peak of seats wanted since the last adjustment, without upstream's mean
and deviation: in one process seats are wanted for milliseconds, which a mean over ten seconds does not see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SMOOTHING = 0.977
"""How much of an old peak remains after an adjustment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The seats of one level: what is its own, and how far it may shrink and grow."""

    nominal: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a level's configuration says of its seats. `borrowing` None: as many as there are."""

    shares: int
    lendable_percent: int
    borrowing_percent: int | None = None


def nominal_limits(wishes: Mapping[str, Wish], server_seats: int) -> dict[str, Limits]:
    """Return the limits of each level. A level with shares has at least one seat."""
    total = sum(wish.shares for wish in wishes.values()) or 1
    found = {}
    for name, wish in wishes.items():
        nominal = math.ceil(server_seats * wish.shares / total)
        lendable = _rounded(nominal * wish.lendable_percent / 100)
        borrowing = server_seats
        if wish.borrowing_percent is not None:
            borrowing = _rounded(nominal * wish.borrowing_percent / 100)
        found[name] = Limits(nominal, nominal - lendable, nominal + borrowing)
    return found


def smooth_demand(smoothed: float, peak: int) -> float:
    """Return the need of a level after a period: it grows at once and shrinks slowly."""
    return max(float(peak), SMOOTHING * smoothed + (1 - SMOOTHING) * peak)


@dataclass(frozen=True, slots=True)
class Need:
    """What a level's requests wanted of late."""

    limits: Limits
    peak: int
    """Most seats wanted at once since the last adjustment."""
    smoothed: float
    """The same over some periods."""

    @property
    def floor(self) -> int:
        """Return what it must have: its own seats as far as it wants them, and what it does not lend."""
        return max(self.limits.minimum, min(self.limits.nominal, self.peak))

    @property
    def target(self) -> float:
        return max(self.floor, self.smoothed)

    def at(self, fraction: float) -> float:
        """Return its seats when every level gets this fraction of its target."""
        return min(max(fraction * self.target, self.floor), self.limits.maximum)


def share_out(needs: Sequence[Need], server_seats: int) -> list[int]:
    """Return the current limit of each level: all get the same fraction of their targets, within their bounds, such
    that the server's seats are used up."""
    fraction = _fair_fraction(needs, server_seats)
    return [_rounded(need.at(fraction)) for need in needs]


def _fair_fraction(needs: Sequence[Need], server_seats: int) -> float:
    """Return the fraction at which the limits add up to the server's seats, or the end that is nearest."""

    def total(fraction: float) -> float:
        return sum(need.at(fraction) for need in needs)

    # the total grows with the fraction in straight pieces that end where a level meets one of its bounds
    ends = {bound / need.target for need in needs if need.target > 0 for bound in (need.floor, need.limits.maximum)}
    before, at_before = 0.0, total(0.0)
    for end in sorted(ends):
        at_end = total(end)
        if at_end >= server_seats:
            rise = at_end - at_before
            return before + (end - before) * max(0.0, server_seats - at_before) / rise if rise else before
        before, at_before = end, at_end
    return before


def _rounded(value: float) -> int:
    """Round half up: banker's rounding would take a seat from every second level."""
    return math.floor(value + 0.5)
