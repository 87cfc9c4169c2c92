"""What happens to every request, in order: `ApiServer.handle` and `_serve` are the map.

Deadline, authentication, audit, impersonation, seats, authorization, routing; then the answer is counted. Routing hands
on to resources (resources.py) or to a non-resource path of the table given. Failures become a Status at one place,
here. Handlers never see a socket.

What a plain GET of a path asks for is remembered with its counters and its last flow (`Shape`), so that a repeated one
pays for none of it again.

Spec: Kubernetes documentation, "Controlling access to the Kubernetes API"; "API Priority and Fairness".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import orjson

from tiphys.api.kind import Kinds
from tiphys.apiserver.deadlines import REQUEST_TIMEOUT_S, is_long_running, timeout_of, within
from tiphys.apiserver.fairness.gate import NOT_TO_KEEP, Flow, Gate, NoSeats
from tiphys.apiserver.fairness.held import hold_for
from tiphys.apiserver.fairness.queues import Waiting
from tiphys.apiserver.impersonation import constrained, impersonate, is_impersonating
from tiphys.apiserver.metrics import RequestCounters, RequestMetrics
from tiphys.apiserver.presenting import present
from tiphys.apiserver.requestinfo import RequestInfo, parse_request_info
from tiphys.apiserver.user import AUTHENTICATED, User
from tiphys.base.clock import Clock, SystemClock
from tiphys.base.errors import ApiError, forbidden, internal, path_not_found
from tiphys.base.metrics import Metrics
from tiphys.wire.encoding import FixedHeaders
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade

if TYPE_CHECKING:
    from tiphys.apiserver.audit.recorder import Record, Recorder
    from tiphys.apiserver.fairness.inflight import InFlight

log = logging.getLogger(__name__)

REMEMBERED_PATHS = 4096
REMEMBERED_USERS = 1024
_UNLIMITED = FixedHeaders((NOT_TO_KEEP,))
"""What answers to requests without a flow say."""
TOO_MANY = b"Too many requests, please try again later.\n"


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> User:
        """Return who makes the request, system:anonymous without credentials. Raises ApiError(401) for bad ones."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """An authorizer's answer; `reason` is told to the client when it is a refusal and not empty."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    def authorize(self, user: User, info: RequestInfo) -> Decision: ...

    def standing(self, user: User) -> int | None:
        """Return a number that changes before any decision about the user does; None: ask every time."""
        ...


ResourceHandler = Callable[[Request, RequestInfo, User], Awaitable[Answer]]
PathHandler = Callable[[Request, User], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Paths:
    """Non-resource paths: `exact` ones, and `prefixes` (ending in "/") for the rest, longest first."""

    exact: Mapping[str, PathHandler]
    prefixes: tuple[tuple[str, PathHandler], ...] = ()

    def find(self, path: str) -> PathHandler | None:
        handler = self.exact.get(path) or self.exact.get(path.rstrip("/"))
        if handler is not None:
            return handler
        return next((h for prefix, h in self.prefixes if path.startswith(prefix)), None)


class Shape:
    """What is known of a request before anybody looks at who makes it."""

    __slots__ = ("counters", "epoch", "flow", "info", "limited", "long_running", "user")

    def __init__(self, info: RequestInfo, counters: RequestCounters) -> None:
        self.info = info
        self.counters = counters
        self.long_running = is_long_running(info)
        self.limited = not self.long_running or info.verb == "watch"
        """Whether it needs seats: streams to and from pods do not."""
        self.user: User | None = None
        """Who asked last; his is the flow, as long as the gate's epoch is this one."""
        self.flow: Flow | None = None
        self.epoch = -1


class ApiServer:
    """The request pipeline. `handle` is the Handler that the HTTP core and the local client call."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: Authorizer,
        resources: ResourceHandler,
        paths: Paths,
        own_groups: Collection[str] = (),
        *,
        metrics: RequestMetrics | None = None,
        clock: Clock | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        gate: Gate | InFlight | None = None,
        recorder: Recorder | None = None,
        constrained_impersonation: bool = False,
    ) -> None:
        self._constrained_impersonation = constrained_impersonation
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._resources = resources
        self._paths = paths
        self._own_groups = frozenset(own_groups)
        self._metrics = metrics or RequestMetrics(Metrics(), Kinds((), (1, 0)))
        self._clock = clock or SystemClock()
        self._now_s = self._clock.monotonic_s
        self._request_timeout_s = request_timeout_s
        self._gate = gate
        self._recorder = recorder
        self._gets: dict[str, Shape] = {}
        """What plain GETs of paths seen lately ask for."""
        self._writes: dict[tuple[str, str, bool, bool], Shape] = {}
        """What other methods ask for, by method, path, dry run and apply."""
        self._trusted: dict[tuple[str, tuple[str, ...]], User] = {}

    async def handle(self, request: Request) -> Answer:
        """Answer one request. Never raises but for cancellation."""
        shape = self._shape(request)
        began_s = self._now_s()
        try:
            if shape.long_running:
                return await self._serve(request, shape, began_s)
            timeout_s = self._request_timeout_s
            if request.raw_query:
                timeout_s = timeout_of(request, timeout_s)
            request.deadline_s = began_s + timeout_s
            return await within(self._serve(request, shape, began_s), timeout_s)
        except ApiError as error:  # too late, or a timeout that is none
            answer = present(status_response(error), request)
            if error.code == 504:
                self._metrics.late.inc((shape.counters.labels[0],))
        except Exception as error:  # the request boundary: a bug in one request must not hurt another
            log.exception("%s %s failed", request.method, request.path)
            answer = present(status_response(internal(f"{type(error).__name__}: {error}")), request)
        shape.counters.done(answer.status, self._now_s() - began_s, answer.body)
        return answer

    async def _serve(self, request: Request, shape: Shape, began_s: float) -> Answer:
        counters, running = shape.counters, self._metrics.running
        kind, info = counters.kind, shape.info
        flow: Flow | None = None
        waited: Waiting | None = None
        record: Record | None = None
        held = 0
        running[kind] += 1
        try:
            user = self._authenticate(request)
            if self._recorder is not None:
                record = self._recorder.begin(request, info, user, self._clock.now_s())
            if is_impersonating(request.headers):
                user = self._impersonate(request, user, info)
                if record is not None:
                    record.acting = user
            gate = self._gate
            if gate is not None and shape.limited:
                flow = shape.flow
                if flow is None or shape.user is not user or shape.epoch != gate.epoch:
                    flow = shape.flow = gate.flow_of(user, info)
                    shape.user, shape.epoch = user, gate.epoch
                level = flow.level
                seats = gate.seats_of(request, info, level) if info.verb == "list" else 1
                if level.exempt or (not level.waiting and level.in_use + seats <= level.limit):
                    level.in_use += seats
                    if level.in_use > level.peak:
                        level.peak = level.in_use
                    held = seats
                else:
                    waited = await gate.wait(request, flow, user, info, seats)
            self._authorize(user, info, record)
            if info.is_resource:
                answer = await self._resources(request, info, user)
            else:
                answer = await self._find(request.path)(request, user)
            if (
                isinstance(answer, Stream)
                and flow is not None
                and hold_for(answer, flow.level, held, waited, is_list=info.verb == "list")
            ):
                held, waited = 0, None
        except ApiError as error:
            answer = present(self._refusal(request, error), request)
            if self._recorder is not None and record is None and error.code == 401:
                self._recorder.refused(request, info, self._clock.now_s(), answer)
        except BaseException as error:
            if self._recorder is not None and record is not None:
                self._recorder.over(record, 504 if isinstance(error, asyncio.CancelledError) else 500)
            raise
        finally:
            running[kind] -= 1
            if held:
                level.in_use -= held
                if level.waiting:
                    level.dispatch()
            elif waited is not None:
                level.end(waited)
        duration_s = self._now_s() - began_s
        if flow is not None:
            answer.headers = _beside(answer.headers, flow.headers) if answer.headers else flow.headers
            flow.schema.counts.executed(duration_s if waited is None else duration_s - waited.waited_s)
        else:
            answer.headers = _beside(answer.headers, _UNLIMITED) if answer.headers else _UNLIMITED
        if self._recorder is not None and record is not None:
            self._recorder.end(record, answer)
        if isinstance(answer, Response):
            counters.done(answer.status, duration_s, answer.body)
            return answer
        return self._followed(answer, counters, began_s, record)

    def _shape(self, request: Request) -> Shape:
        query = request.raw_query
        if request.method == "GET" and not (query and ("watch" in query or "metadata.name" in query)):
            # no other part of a query changes what a GET asks for
            shape = self._gets.get(request.path)
            if shape is None:
                info = parse_request_info(request)
                if len(self._gets) >= REMEMBERED_PATHS:
                    self._gets.clear()
                shape = self._gets[request.path] = Shape(info, self._metrics.of(info))
            return shape
        if request.method in ("GET", "HEAD"):
            info = parse_request_info(request)
            return Shape(info, self._metrics.of(info))
        dry_run = "dryRun=" in query
        apply = request.method == "PATCH" and "apply-patch" in request.headers.get("content-type", "")
        key = (request.method, request.path, dry_run, apply)
        shape = self._writes.get(key)
        if shape is None:
            info = parse_request_info(request)
            if len(self._writes) >= REMEMBERED_PATHS:
                self._writes.clear()
            shape = self._writes[key] = Shape(info, self._metrics.of(info, dry_run=dry_run, apply=apply))
        return shape

    def _refusal(self, request: Request, error: ApiError) -> Response:
        """Return the answer for a failure. Upstream tells a path that nothing claims in plain text; below a group of its
        own it is a Status."""
        if isinstance(error, NoSeats):
            self._metrics.dropped.inc((error.request_kind,))
            return Response(429, TOO_MANY, "text/plain; charset=utf-8", error.headers)
        if error.code != 404 or error.details:
            return status_response(error)
        path = request.path
        if path.startswith(("/api/", "/version/")) or path in ("/api", "/version"):
            return status_response(error)
        parts = path.split("/", 3)
        if len(parts) > 2 and parts[1] == "apis" and parts[2] in self._own_groups:
            return status_response(error)
        return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _authenticate(self, request: Request) -> User:
        trusted = request.peer.trusted_user
        if trusted is not None:
            user = self._trusted.get(trusted)
            if user is None:
                if len(self._trusted) >= REMEMBERED_USERS:
                    self._trusted.clear()
                user = self._trusted[trusted] = User(trusted[0], (*trusted[1], AUTHENTICATED))
            return user
        try:
            user = self._authenticator.authenticate(request)
        except ApiError:
            self._metrics.refused += 1
            raise
        users, name = self._metrics.users, user.name
        if name in users:
            users[name] += 1
        else:
            self._metrics.authenticated(name)
        return user

    def _authorize(self, user: User, info: RequestInfo, record: Record | None) -> None:
        decision = self._authorizer.authorize(user, info)
        if record is not None:
            record.decided(decision.allowed, decision.reason)
        if not decision.allowed:
            self._metrics.denied += 1
            raise denial(user, info, decision.reason)
        self._metrics.allowed += 1

    def _find(self, path: str) -> PathHandler:
        handler = self._paths.find(path)
        if handler is None:
            raise path_not_found()
        return handler

    def _impersonate(self, request: Request, user: User, wanted: RequestInfo) -> User:
        def check(info: RequestInfo) -> None:
            decision = self._authorizer.authorize(user, info)
            if not decision.allowed:
                raise denial(user, info, decision.reason)

        def allows(info: RequestInfo) -> bool:
            return self._authorizer.authorize(user, info).allowed

        try:
            return impersonate(request.headers, check)
        except ApiError:
            limited = constrained(request.headers, user, wanted, allows) if self._constrained_impersonation else None
            if limited is None:
                raise
            return limited

    def _followed(
        self, answer: Stream | Upgrade, counters: RequestCounters, began_s: float, record: Record | None
    ) -> Answer:
        """Return an answer that comes over time such that it is counted, and told, while it is open."""

        def over(status: int) -> None:
            counters.running -= 1
            counters.done(status, self._now_s() - began_s, b"")
            if self._recorder is not None and record is not None:
                self._recorder.over(record, status)

        if isinstance(answer, Upgrade):
            run = answer.run

            async def counted_run(connection: Connection) -> None:
                counters.running += 1
                try:
                    await run(connection)
                finally:
                    over(101)

            answer.run = counted_run
            return answer
        start, status = answer.start, answer.status

        def counted(sink: Sink) -> Callable[[], None]:
            counters.running += 1
            stop = start(sink)

            def stopped() -> None:
                over(status)
                stop()

            return stopped

        answer.start = counted
        return answer


def denial(user: User, info: RequestInfo, reason: str) -> ApiError:
    """Return the 403 that tells who may not do what, where."""
    if not info.is_resource:
        message = f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"'
        return ApiError(403, "Forbidden", message + (f": {reason}" if reason else ""), details={})
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {where}'
    return forbidden(info.group, info.resource, info.name, why + (f": {reason}" if reason else ""))


def _beside(own: Sequence[tuple[str, str]], shared: FixedHeaders) -> Sequence[tuple[str, str]]:
    """Return an answer's own headers and those of its flow; who says himself how long an answer may be kept is heard."""
    if any(name == NOT_TO_KEEP[0] for name, _ in own):
        return (*own, *(header for header in shared if header is not NOT_TO_KEEP))
    return (*own, *shared)


def status_response(error: ApiError) -> Response:
    """Return the answer for a failure: the one place where an ApiError becomes a Status."""
    return Response(error.code, orjson.dumps(error.status()), headers=error.headers)
