"""What the API server counts of its requests, and how: upstream's metric names, so that dashboards work unchanged.

Each distinct request shape (verb, resource, scope) has one `RequestCounters`, found once and kept by the pipeline, so a
request costs a few additions; text is made when /metrics is asked for. What other parts know anyway (objects, seats,
revisions) is collected at that moment: statemetrics.py. Bound: labels come from served kinds and known paths only; what
clients invent counts without them.

Spec: Kubernetes documentation, "Kubernetes Metrics Reference".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence

from tiphys.api.kind import Kinds
from tiphys.api.kinds.deprecations import deprecation_of
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.base.metrics import Labels, Metrics, Sample, Series, exponential, histogram_lines

COMPONENT = "apiserver"
DURATIONS_S = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
SIZES_BYTES = exponential(1000, 10, 7)
QUICK_S = DURATIONS_S[0]
READ_ONLY, MUTATING = 0, 1
"""Indexes of what is counted by kind of request."""
_READING = frozenset({"get", "list", "watch"})
_VERBS = {
    "get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
    "delete": "DELETE", "deletecollection": "DELETECOLLECTION", "proxy": "CONNECT", "post": "POST", "put": "PUT",
    "head": "HEAD", "options": "OPTIONS",
}  # fmt: skip
_CONNECTING = frozenset({"exec", "attach", "portforward", "proxy"})
_KNOWN_NAMES = frozenset({"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"})
REMEMBERED_USERS = 4096
_SHAPE = ("verb", "group", "version", "resource", "subresource", "scope", "component")
_DRY_SHAPE = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")


class RequestCounters:
    """The counts of one shape of requests."""

    __slots__ = ("codes", "durations", "kind", "labels", "quick", "running", "sizes", "total_s")

    def __init__(self, labels: Labels, kind: int, sized: bool) -> None:
        self.labels = labels
        """Values of _DRY_SHAPE."""
        self.kind = kind
        """READ_ONLY or MUTATING."""
        self.quick = 0
        """Answers with 200 in less than QUICK_S: nearly all; the rest is in `codes` and `durations`."""
        self.codes: dict[int, int] = {}
        self.durations = [0] * (len(DURATIONS_S) + 1)
        self.total_s = 0.0
        self.sizes = Series(SIZES_BYTES) if sized else None
        self.running = 0
        """Long-running requests that are open."""

    def by_code(self) -> dict[int, int]:
        """Return how many requests were answered with each code."""
        return {**self.codes, 200: self.codes.get(200, 0) + self.quick} if self.quick else self.codes

    def by_duration(self) -> list[int]:
        """Return how many requests are in each bucket alone."""
        return [self.durations[0] + self.quick, *self.durations[1:]]

    def done(self, code: int, duration_s: float, body: bytes | Sequence[bytes]) -> None:
        """Count an answered request."""
        self.total_s += duration_s
        if code == 200 and duration_s < QUICK_S:
            self.quick += 1
        else:
            self.codes[code] = self.codes.get(code, 0) + 1
            self.durations[bisect_left(DURATIONS_S, duration_s)] += 1
        sizes = self.sizes
        if sizes is not None:
            size = len(body) if isinstance(body, bytes) else sum(map(len, body))
            sizes.total += size
            if size <= 1000:
                sizes.counts[0] += 1
            else:
                sizes.counts[bisect_left(SIZES_BYTES, size)] += 1


class RequestMetrics:
    """Counts of all requests. The pipeline counts in its public attributes directly."""

    def __init__(self, metrics: Metrics, kinds: Kinds, known_paths: Collection[str] = ()) -> None:
        self._kinds = kinds
        self._known_paths = frozenset(known_paths)
        self._shapes: dict[Labels, RequestCounters] = {}
        self.running = [0, 0]
        """Requests being handled that are not long-running, by READ_ONLY and MUTATING."""
        self.users: dict[str, int] = {}
        """Authenticated requests by name; folded into few series when it is told or too large."""
        self.refused = 0
        """Requests with wrong credentials."""
        self.allowed = 0
        self.denied = 0
        self.late = metrics.counter(
            "apiserver_request_timeouts_total", "Requests that did not complete within their deadline.", ("verb",)
        )
        self.dropped = metrics.counter(
            "apiserver_dropped_requests_total", "Requests that were refused because too many ran.", ("request_kind",)
        )
        self._publish(metrics)

    def of(self, info: RequestInfo, *, dry_run: bool = False, apply: bool = False) -> RequestCounters:
        """Return the counters of a request."""
        labels = self._labels(info, dry_run, apply)
        found = self._shapes.get(labels)
        if found is None:
            kind = READ_ONLY if info.verb in _READING else MUTATING
            found = self._shapes[labels] = RequestCounters(labels, kind, labels[0] in ("GET", "LIST"))
        return found

    def _labels(self, info: RequestInfo, dry_run: bool, apply: bool) -> Labels:
        verb = "APPLY" if apply else _VERBS.get(info.verb, "OTHER")
        dry = "All" if dry_run else ""
        if not info.is_resource:
            path = info.path if info.path in self._known_paths else ""
            return (verb, dry, "", "", "", path, "", COMPONENT)
        if self._kinds.resource(info.group, info.version, info.resource) is None:
            return (verb, dry, "", "", "", "", "", COMPONENT)
        scope = "cluster"
        if info.name or info.verb == "create":
            scope = "resource"
        elif info.namespace:
            scope = "namespace"
        if info.subresource in _CONNECTING:
            verb = "CONNECT"
        subresource = info.subresource if "/" not in info.subresource else ""
        return (verb, dry, info.group, info.version, info.resource, subresource, scope, COMPONENT)

    def authenticated(self, name: str) -> None:
        """Count a request of a user."""
        users = self.users
        if name not in users and len(users) >= REMEMBERED_USERS:
            folded = dict(self._folded())
            users.clear()
            users.update({labels[0]: int(value) for labels, value in folded.items()})
        users[name] = users.get(name, 0) + 1

    def _folded(self) -> Iterable[Sample]:
        totals: dict[Labels, float] = {}
        for name, count in self.users.items():
            label = name if name in _KNOWN_NAMES else "email_id" if "@" in name else "other"
            totals[label,] = totals.get((label,), 0) + count
        return totals.items()

    def _attempts(self) -> Iterable[Sample]:
        return [(("success",), sum(self.users.values())), (("failure",), self.refused)]

    def _totals(self) -> Iterable[Sample]:
        return [((*s.labels, str(code)), n) for s in self._shapes.values() for code, n in s.by_code().items()]

    def _deprecated(self) -> Iterable[Sample]:
        """Return one series for each deprecated version that somebody has asked for."""
        minor = self._kinds.kubernetes_version[1]
        for _, _, group, version, plural, subresource, _, _ in self._shapes:
            kind = self._kinds.resource(group, version, plural) if plural else None
            found = deprecation_of(minor, group, version, kind.kind) if kind is not None else None
            if found is not None:
                yield ((group, version, plural, subresource, found.removed_release), 1)

    def _long_running(self) -> Iterable[Sample]:
        return [((s.labels[0], *s.labels[2:]), s.running) for s in self._shapes.values() if s.running]

    def _publish(self, metrics: Metrics) -> None:
        tell = metrics.collect
        tell(
            "counter",
            "apiserver_request_total",
            "Answered requests by verb, resource, scope and code.",
            (*_DRY_SHAPE, "code"),
            self._totals,
        )
        metrics.add(_Durations("apiserver_request_duration_seconds", _DRY_SHAPE, self._shapes))
        metrics.add(_Durations("apiserver_request_sli_duration_seconds", _SHAPE, self._shapes))
        metrics.add(_Sizes(self._shapes))
        tell("gauge", "apiserver_longrunning_requests", "Open watches and streams.", _SHAPE, self._long_running)
        tell(
            "gauge",
            "apiserver_current_inflight_requests",
            "Requests that are being handled, without long-running ones.",
            ("request_kind",),
            lambda: [(("readOnly",), self.running[READ_ONLY]), (("mutating",), self.running[MUTATING])],
        )
        tell("counter", "authenticated_user_requests", "Requests by user, in few groups.", ("username",), self._folded)
        tell("counter", "authentication_attempts", "Authentications by result.", ("result",), self._attempts)
        tell(
            "gauge",
            "apiserver_requested_deprecated_apis",
            "Deprecated versions that were asked for, with the release that does without; always 1.",
            ("group", "version", "resource", "subresource", "removed_release"),
            lambda: dict(self._deprecated()).items(),
        )
        tell(
            "counter",
            "apiserver_authorization_decisions_total",
            "Decisions by the chain of authorizers.",
            ("type", "name", "decision"),
            lambda: [(("Union", "union", "allowed"), self.allowed), (("Union", "union", "denied"), self.denied)],
        )


class _Durations:
    """A histogram of durations over all shapes. DIFFERS: the SLI form holds the time of webhooks too."""

    kind = "histogram"
    help = "Time from a request's arrival to its answer, in seconds."

    def __init__(self, name: str, labels: Labels, shapes: dict[Labels, RequestCounters]) -> None:
        self.name = name
        self.labels = labels
        self._shapes = shapes

    def lines(self) -> Iterable[str]:
        dry = "dry_run" in self.labels
        summed: dict[Labels, tuple[list[int], float]] = {}
        for shape in self._shapes.values():
            durations = shape.by_duration()
            if not any(durations):
                continue
            values = shape.labels if dry else (shape.labels[0], *shape.labels[2:])
            counts, total_s = summed.get(values, ([0] * len(durations), 0.0))
            summed[values] = ([a + b for a, b in zip(counts, durations, strict=True)], total_s + shape.total_s)
        for values, (counts, total_s) in summed.items():
            yield from histogram_lines(self.name, self.labels, values, DURATIONS_S, counts, total_s)


class _Sizes:
    """Sizes of the answers of reads."""

    kind = "histogram"
    name = "apiserver_response_sizes"
    help = "Size of the answers of GET and LIST in bytes."
    labels: Labels = _SHAPE

    def __init__(self, shapes: dict[Labels, RequestCounters]) -> None:
        self._shapes = shapes

    def lines(self) -> Iterable[str]:
        for shape in self._shapes.values():
            sizes = shape.sizes
            if sizes is not None and any(sizes.counts):
                values = (shape.labels[0], *shape.labels[2:])
                yield from histogram_lines(self.name, self.labels, values, SIZES_BYTES, sizes.counts, sizes.total)
