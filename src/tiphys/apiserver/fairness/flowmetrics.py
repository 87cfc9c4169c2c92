"""What fairness tells of itself at a scrape, under upstream's names. Nothing is counted for this alone.

Spec: Kubernetes documentation, "API Priority and Fairness: Metrics".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tiphys.apiserver.fairness.gate import Gate
from tiphys.apiserver.fairness.levels import Level
from tiphys.apiserver.fairness.matching import DURATIONS_S, Schema
from tiphys.base.metrics import Labels, Metrics, Sample, histogram_lines

_LEVEL: Labels = ("priority_level",)
_FLOW: Labels = ("priority_level", "flow_schema")


def publish_fairness(metrics: Metrics, gate: Gate) -> None:
    """Publish the metrics of a gate."""

    def of_levels(value: Callable[[Level], float]) -> Callable[[], Iterable[Sample]]:
        def collect() -> Iterable[Sample]:
            gate.refresh()
            return [((name,), value(level)) for name, level in gate.levels.items()]

        return collect

    def of_schemas(value: Callable[[Schema], float]) -> Callable[[], Iterable[Sample]]:
        def collect() -> Iterable[Sample]:
            gate.refresh()
            return [((s.level, s.name), value(s)) for s in gate.schemas]

        return collect

    def rejected() -> Iterable[Sample]:
        return [((s.level, s.name, reason), n) for s in gate.schemas for reason, n in s.counts.rejected.items()]

    prefix = "apiserver_flowcontrol_"
    for name, told, level_value in (
        ("nominal_limit_seats", "Seats of each level by its shares.", lambda level: level.limits.nominal),
        ("lower_limit_seats", "Seats that each level does not lend.", lambda level: level.limits.minimum),
        ("upper_limit_seats", "Seats that each level may have with borrowing.", lambda level: level.limits.maximum),
        ("current_limit_seats", "Seats that each level may use now.", lambda level: level.limit),
        ("request_concurrency_limit", "Seats of each level by its shares.", lambda level: level.limits.nominal),
        ("demand_seats_high_watermark", "Most seats wanted at once of late.", lambda level: level.peak),
        ("demand_seats_smoothed", "Seats wanted, over some periods.", lambda level: level.smoothed),
        ("target_seats", "Seats at which borrowing aims.", lambda level: max(level.limits.minimum, level.smoothed)),
    ):
        metrics.collect("gauge", prefix + name, told, _LEVEL, of_levels(level_value))
    for name, told, value in (
        ("current_inqueue_requests", "Requests that wait.", lambda schema: schema.counts.queued),
        ("current_inqueue_seats", "Seats that waiting requests want.", lambda schema: _waiting_seats(gate, schema)),
    ):
        metrics.collect("gauge", prefix + name, told, _FLOW, of_schemas(value))
    for name, told in (
        ("current_executing_seats", "Seats that are held."),
        ("current_executing_requests", "Requests that run. Those of one seat, and large ones by their seats."),
    ):
        metrics.collect("gauge", prefix + name, told, _LEVEL, of_levels(lambda level: level.in_use))
    metrics.collect(
        "counter",
        prefix + "dispatched_requests_total",
        "Requests that were let through.",
        _FLOW,
        of_schemas(lambda schema: sum(schema.counts.by_duration())),
    )
    metrics.collect(
        "counter", prefix + "rejected_requests_total", "Requests that were refused.", (*_FLOW, "reason"), rejected
    )
    metrics.add(_Durations(gate))
    metrics.add(_Waits(gate))


def _waiting_seats(gate: Gate, schema: Schema) -> int:
    level = gate.levels.get(schema.level)
    if level is None or level.queues is None or not level.waiting:
        return 0
    return sum(waiting.seats for waiting in level.queues.all() if waiting.schema.name == schema.name)


class _Durations:
    """How long requests ran that were let through."""

    kind = "histogram"
    name = "apiserver_flowcontrol_request_execution_seconds"
    help = "Time that requests ran for once they had seats."
    labels: Labels = (*_FLOW, "type")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def lines(self) -> Iterable[str]:
        for schema in self._gate.schemas:
            counts = schema.counts.by_duration()
            if any(counts):
                values = (schema.level, schema.name, "regular")
                yield from histogram_lines(self.name, self.labels, values, DURATIONS_S, counts, schema.counts.total_s)


class _Waits:
    """How long requests waited; those that did not wait count as zero."""

    kind = "histogram"
    name = "apiserver_flowcontrol_request_wait_duration_seconds"
    help = "Time that requests waited for seats."
    labels: Labels = (*_FLOW, "execute")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def lines(self) -> Iterable[str]:
        for schema in self._gate.schemas:
            counts = schema.counts
            at_once = sum(counts.by_duration()) - sum(counts.waits)
            if at_once > 0 or any(counts.waits):
                waits = [counts.waits[0] + max(0, at_once), *counts.waits[1:]]
                values = (schema.level, schema.name, "true")
                yield from histogram_lines(self.name, self.labels, values, DURATIONS_S, waits, counts.waited_s)
