"""From single probe results to a verdict. Pure.

Invariant: a verdict changes only after `successThreshold` or `failureThreshold` equal results in a row.
Spec: Kubernetes docs, "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tiphys.api.views.pod import Probe


@dataclass(frozen=True, slots=True)
class Tally:
    """Results so far: `row` equal ones in a row; `verdict` is what they amount to."""

    verdict: bool
    last: bool | None = None
    row: int = 0


def first_tally(kind: str) -> Tally:
    """Return the state before the first probe: alive, but neither started nor ready."""
    return Tally(verdict=kind == "liveness")


def count_result(tally: Tally, probe: Probe, success: bool) -> Tally:
    """Return the state after one more result."""
    row = tally.row + 1 if tally.last is success else 1
    threshold = (probe.success_threshold or 1) if success else (probe.failure_threshold or 3)
    counted = replace(tally, last=success, row=row)
    return replace(counted, verdict=success) if row >= threshold else counted


def gave_up(tally: Tally, probe: Probe) -> bool:
    """Tell whether a liveness or startup probe has failed often enough to kill the container."""
    return tally.last is False and tally.row >= (probe.failure_threshold or 3)


def delay_s(probe: Probe, started_at_s: float, now_s: float) -> float:
    """Return how long to wait before the first probe of an instance."""
    return max(0.0, started_at_s + (probe.initial_delay_seconds or 0) - now_s)
