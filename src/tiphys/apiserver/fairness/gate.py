"""What the pipeline asks before it handles a request: to which flow it belongs, and for its seats.

Keeps levels and schemas as the watch cache has them; the mandatory ones stand even when their objects do not. A flow is
found once for each kind of request of a user and remembered until any of the objects changes. Every ten seconds levels
lend each other what they do not need. Invariant: `exempt` and `catch-all` are always there, so that every request has
a flow; a level whose object is gone lives until its last request is over.

The server's seats are upstream's: 400 for reading and 200 for writing together. They bound what waits, not the work of
the processor: one event loop does one thing at a time.

Spec: Kubernetes documentation, "API Priority and Fairness"; API server flags "--max-requests-inflight".
DIFFERS: a write takes one seat however many watch what it changes: in one event loop they are told before the next
request is looked at, so that seats held for it would bound nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import orjson

from tiphys.api import fairnessobjects as objects
from tiphys.apiserver.cache import ResourceCache
from tiphys.apiserver.cached import CachedEvent
from tiphys.apiserver.fairness.levels import WAIT_LIMIT_S, Level
from tiphys.apiserver.fairness.matching import Schema, find, order, parse_schema
from tiphys.apiserver.fairness.queues import Waiting, flow_hash
from tiphys.apiserver.fairness.shares import Limits, Need, nominal_limits, share_out, smooth_demand
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.clock import Clock
from tiphys.base.errors import ApiError
from tiphys.wire.encoding import FixedHeaders
from tiphys.wire.message import Request

SERVER_SEATS = 600
ADJUST_EVERY_S = 10.0
REMEMBERED_FLOWS = 8192
OBJECTS_A_SEAT = 100
LIST_SEATS_LIMIT = 10
LIST_SHARE = 0.15
"""No list takes more of its level's nominal seats."""
LEVEL_HEADER = "X-Kubernetes-PF-PriorityLevel-UID"
SCHEMA_HEADER = "X-Kubernetes-PF-FlowSchema-UID"
NOT_TO_KEEP = ("Cache-Control", "no-cache, private")
"""No answer may be kept by what is on its way, unless it says so itself."""

Count = Callable[[RequestInfo], int]
"""Returns how many objects a list looks at."""


class Flow:
    """Requests that are one to fairness: a schema, its level and what distinguishes them."""

    __slots__ = ("_number", "distinguisher", "headers", "level", "schema")

    def __init__(self, schema: Schema, level: Level, distinguisher: str, headers: FixedHeaders) -> None:
        self.schema = schema
        self.level = level
        self.distinguisher = distinguisher
        self.headers = headers
        self._number: int | None = None

    @property
    def number(self) -> int:
        """Return the hash that decides its queues."""
        if self._number is None:
            self._number = flow_hash(self.schema.name, self.distinguisher)
        return self._number


class NoSeats(ApiError):
    """There is no seat to be had, and no place to wait for one. The client is told to come again."""

    def __init__(self, *, mutating: bool) -> None:
        super().__init__(
            429,
            "TooManyRequests",
            "Too many requests, please try again later.",
            headers=(("Retry-After", "1"), ("X-Content-Type-Options", "nosniff")),
        )
        self.request_kind = "mutating" if mutating else "readOnly"


class Gate:
    """See the module's docstring."""

    def __init__(
        self,
        schemas: ResourceCache,
        levels: ResourceCache,
        clock: Clock,
        count: Count,
        server_seats: int = SERVER_SEATS,
    ) -> None:
        self._schema_objects = schemas
        self._level_objects = levels
        self._clock = clock
        self._count = count
        self.server_seats = server_seats
        self.levels: dict[str, Level] = {}
        self.schemas: list[Schema] = []
        self.epoch = 0
        """Grows with every change of configuration: what was found before does not count any more."""
        self._flows: dict[tuple[object, ...], Flow] = {}
        self._headers: dict[tuple[str, str], FixedHeaders] = {}
        self.changed = asyncio.Event()
        """Set by every change of a FlowSchema or PriorityLevelConfiguration; whoever waits clears it."""
        for resource in (schemas, levels):
            resource.listeners.add(self._on_change)
            resource.on_reset.add(self._become_stale)
        self._stale = False
        self._usable: list[Schema] = []
        """Schemas whose level is there, in order."""
        self._take_over()

    def _on_change(self, events: Sequence[CachedEvent]) -> None:
        self._become_stale()

    def _become_stale(self) -> None:
        self._stale = True
        self.epoch += 1
        self.changed.set()

    def refresh(self) -> None:
        """Take over what has changed since the last time. Cheap when nothing has."""
        if self._stale:
            self._take_over()

    def _take_over(self) -> None:
        self._stale = False
        wanted = {obj["metadata"]["name"]: obj for obj in objects.mandatory(objects.LEVELS)}
        for cached in self._level_objects:
            wanted[cached.name] = orjson.loads(cached.body)
        for name, obj in wanted.items():
            level = self.levels.get(name)
            if level is None:
                level = self.levels[name] = Level(name, self._clock)
            level.configure(obj.get("spec") or {}, obj["metadata"].get("uid", ""))
        for name in [name for name in self.levels if name not in wanted]:
            self.levels[name].quiescing = True
            if self.levels[name].is_idle():
                del self.levels[name]
        self._share_nominal()
        known = {schema.name: schema.counts for schema in self.schemas}
        found = {obj["metadata"]["name"]: obj for obj in objects.mandatory(objects.SCHEMAS)}
        for cached in self._schema_objects:
            found[cached.name] = orjson.loads(cached.body)
        compiled = [parse_schema(obj) for obj in found.values()]
        for schema in compiled:
            schema.counts = known.get(schema.name, schema.counts)
        self.schemas = order(compiled)
        self._usable = [s for s in self.schemas if s.level in self.levels and not self.levels[s.level].quiescing]
        self._flows.clear()
        self._headers.clear()

    def _share_nominal(self) -> None:
        live = {name: level.wish for name, level in self.levels.items() if not level.quiescing}
        for name, limits in nominal_limits(live, self.server_seats).items():
            level = self.levels[name]
            if level.limits != limits:
                level.limits, level.limit = limits, limits.nominal
            level.dispatch()

    # For each request

    def flow_of(self, user: User, info: RequestInfo) -> Flow:
        """Return the flow of a request; it stands while `epoch` does."""
        self.refresh()
        if info.is_resource:
            key = (user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace)
        else:
            key = (user.name, user.groups, info.verb, info.path, "", "", "")
        flow = self._flows.get(key)
        if flow is None:
            schema = find(self._usable, user, info)
            level = self.levels[schema.level]
            names = (schema.uid, level.uid)
            headers = self._headers.get(names)
            if headers is None:
                told = ((SCHEMA_HEADER, schema.uid), (LEVEL_HEADER, level.uid)) if all(names) else ()
                headers = self._headers[names] = FixedHeaders((NOT_TO_KEEP, *told))
            if len(self._flows) >= REMEMBERED_FLOWS:
                self._flows.clear()
            flow = self._flows[key] = Flow(schema, level, schema.distinguish(user, info), headers)
        return flow

    def seats_of(self, request: Request, info: RequestInfo, level: Level) -> int:
        """Return how many seats a request takes: a list more, by the objects that it looks at."""
        if info.verb != "list":
            return 1
        looked_at = self._count(info)
        if looked_at <= OBJECTS_A_SEAT:
            return 1
        if "limit=" in request.raw_query and "Selector=" not in request.raw_query:
            limit = request.param("limit")
            looked_at = min(looked_at, int(limit)) if limit.isdecimal() and int(limit) else looked_at
        seats = math.ceil(looked_at / OBJECTS_A_SEAT)
        most = LIST_SEATS_LIMIT if level.exempt else min(LIST_SEATS_LIMIT, math.ceil(level.limits.nominal * LIST_SHARE))
        return max(1, min(seats, most))

    async def wait(self, request: Request, flow: Flow, user: User, info: RequestInfo, seats: int) -> Waiting:
        """Get seats for a request that may have to wait for them. Raises NoSeats.

        Returns what `Level.end` is called with when the request is over.
        """
        wait_s = WAIT_LIMIT_S
        if request.deadline_s:
            wait_s = max(0.0, min(wait_s, request.deadline_s - self._clock.monotonic_s()))
        who = (flow.distinguisher, user.name)
        waited = await flow.level.wait(flow.schema, flow.number, who, info, seats, wait_s)
        if waited is None:
            raise NoSeats(mutating=info.verb not in ("get", "list", "watch"))
        return waited

    # Over time

    def adjust(self) -> None:
        """Let levels lend each other seats by what they needed since the last time."""
        self.refresh()
        for name in [n for n, level in self.levels.items() if level.quiescing and level.is_idle()]:
            del self.levels[name]
        levels = [level for level in self.levels.values() if not level.quiescing]
        needs = []
        for level in levels:
            peak, level.peak = level.peak, level.in_use + level.waiting_seats
            level.smoothed = smooth_demand(level.smoothed, peak)
            limits = level.limits
            if level.exempt:  # nothing bounds it: it has what it wanted, the others share the rest
                wanted = max(limits.minimum, peak)
                limits = Limits(limits.nominal, wanted, wanted)
            needs.append(Need(limits, peak, level.smoothed))
        for level, limit in zip(levels, share_out(needs, self.server_seats), strict=True):
            level.limit = limit
            if level.waiting:
                level.dispatch()

    async def run(self) -> None:
        """Adjust for ever."""
        while True:
            await asyncio.sleep(ADJUST_EVERY_S)
            self.adjust()
