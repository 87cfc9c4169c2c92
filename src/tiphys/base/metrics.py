"""Counters, gauges and histograms, and their text: what every component counts with.

A metric is a dict from a tuple of label values to a number (or to a list of buckets), so that counting is one lookup;
text is made when somebody scrapes. What another place counts already (objects of a cache, seats of a queue) is told by
a `Collector` at that moment and costs nothing between. Bound: the label values that callers use; they must come from
tables of the program or from bounded sets, never from what clients write.

Spec: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

Labels = tuple[str, ...]
Sample = tuple[Labels, float]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(Protocol):
    """One family of series."""

    name: str
    help: str
    labels: Labels

    def lines(self) -> Iterable[str]:
        """Return the lines of all series, without HELP and TYPE."""
        ...

    @property
    def kind(self) -> str: ...


class Counter:
    """Numbers that only grow. `values` may be counted in directly: `values[labels] += 1`."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self.values: dict[Labels, float] = {}

    def inc(self, labels: Labels = (), amount: float = 1) -> None:
        """Count. `labels` are the values in the order of the metric's labels."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterable[str]:
        return [f"{self.name}{format_labels(self.labels, k)} {format_value(v)}" for k, v in self.values.items()]


class Series:
    """One series of a histogram; whoever observes often keeps it and calls `observe` itself."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many values are in each bucket alone; the last is what exceeds all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histogram:
    """Distributions over fixed buckets."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self.series: dict[Labels, Series] = {}

    def of(self, labels: Labels = ()) -> Series:
        """Return a series, made if need be."""
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = Series(self.bounds)
        return found

    def observe(self, value: float, labels: Labels = ()) -> None:
        self.of(labels).observe(value)

    def lines(self) -> Iterable[str]:
        for values, series in self.series.items():
            yield from histogram_lines(self.name, self.labels, values, self.bounds, series.counts, series.total)


class Collected:
    """A family whose series are told by a function when it is scraped."""

    def __init__(
        self,
        kind: str,
        name: str,
        help: str,
        labels: Sequence[str],
        collect: Callable[[], Iterable[Sample]],
    ) -> None:
        self.kind = kind
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self._collect = collect

    def lines(self) -> Iterable[str]:
        return [f"{self.name}{format_labels(self.labels, k)} {format_value(v)}" for k, v in self._collect()]


class Metrics:
    """What one process publishes. Names are unique."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def add(self, metric: Metric) -> None:
        """Publish a metric that was made elsewhere."""
        assert metric.name not in self._metrics, f"two metrics are called {metric.name}"
        self._metrics[metric.name] = metric

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        made = Counter(name, help, labels)
        self.add(made)
        return made

    def histogram(self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        made = Histogram(name, help, labels, bounds)
        self.add(made)
        return made

    def collect(
        self,
        kind: str,
        name: str,
        help: str,
        labels: Sequence[str],
        samples: Callable[[], Iterable[Sample]],
    ) -> None:
        """Publish what `samples` returns at each scrape. `kind` is counter or gauge."""
        self.add(Collected(kind, name, help, labels, samples))

    def all(self) -> list[Metric]:
        """Return the families, sorted by name."""
        return sorted(self._metrics.values(), key=lambda metric: metric.name)

    def pieces(self) -> Iterable[bytes]:
        """Yield the text of each family; one without series is left out, as upstream's library does."""
        for metric in self.all():
            lines = list(metric.lines())
            if lines:
                head = f"# HELP {metric.name} {_escape_help(metric.help)}\n# TYPE {metric.name} {metric.kind}"
                yield "\n".join([head, *lines, ""]).encode()

    def format(self) -> bytes:
        """Return the text of everything."""
        return b"".join(self.pieces())


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Return bounds that grow by a factor."""
    return tuple(start * factor**n for n in range(count))


def histogram_lines(
    name: str, labels: Labels, values: Labels, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Iterable[str]:
    """Yield the lines of one histogram series from the count of each bucket alone."""
    inner = ",".join(f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True))
    before = f"{inner}," if inner else ""
    running = 0
    for bound, count in zip(bounds, counts, strict=False):
        running += count
        yield f'{name}_bucket{{{before}le="{format_value(bound)}"}} {running}'
    running += counts[-1]
    yield f'{name}_bucket{{{before}le="+Inf"}} {running}'
    around = f"{{{inner}}}" if inner else ""
    yield f"{name}_sum{around} {format_value(total)}"
    yield f"{name}_count{around} {running}"


def format_labels(names: Labels, values: Labels) -> str:
    """Return `{a="b",c="d"}`, "" without labels."""
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


def format_value(value: float) -> str:
    """Return a number as Go prints it in this format: whole ones without a fraction."""
    if isinstance(value, int):
        return str(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _escape(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
