"""A GET of one object, answered without a coroutine when nothing has to be waited for or explained.

Most requests of clients that do not watch are such GETs, and going through the pipeline's coroutines costs several
times what looking up the object costs. `QuickGets` takes the pipeline's decisions in its order (authentication, seats,
authorization, the answer, counting) with the same parts, and answers None wherever any of them has more to say than
yes: the pipeline then handles the request from its beginning. Invariants: nothing is counted before the answer is
certain; what is remembered of a path or of headers stands only as long as the revisions kept with it.

An audit log wants to see every request: with one there are no quick GETs.

Spec: Kubernetes API concepts, "API verbs"; the order is that of pipeline.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiphys.api.kind import Kind, Kinds
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.cache import ResourceCache, WatchCache
from tiphys.apiserver.fairness.gate import Flow, Gate
from tiphys.apiserver.heavy import HEAVY_BYTES
from tiphys.apiserver.impersonation import is_impersonating
from tiphys.apiserver.metrics import RequestCounters, RequestMetrics
from tiphys.apiserver.negotiation import PLAIN, YAML, Form, accepted_form
from tiphys.apiserver.pipeline import Authenticator, Authorizer
from tiphys.apiserver.reads import Reads, wants_indent
from tiphys.apiserver.rendering import Rendering
from tiphys.apiserver.requestinfo import RequestInfo, parse_request_info
from tiphys.apiserver.user import User
from tiphys.base.clock import Clock
from tiphys.base.errors import ApiError
from tiphys.store.interface import Store
from tiphys.wire.message import Headers, Request, Response

if TYPE_CHECKING:
    from tiphys.apiserver.fairness.inflight import InFlight

REMEMBERED_PATHS = 4096


class _Target:
    """What a path names, and what was decided about the last user who asked for it."""

    __slots__ = (
        "counters", "custom", "epoch", "flow", "info", "kind", "kinds_at", "namespace", "objects", "renderings", "standing",
        "user",
    )  # fmt: skip

    def __init__(self, info: RequestInfo, counters: RequestCounters) -> None:
        self.info = info
        self.counters = counters
        self.kind: Kind | None = None
        """None when the path names no object that can be had quickly."""
        self.custom = False
        self.namespace = ""
        self.objects: ResourceCache | None = None
        self.renderings: dict[str, Rendering] = {}
        """By media type."""
        self.kinds_at = -1
        """Revision of the served kinds at which `kind` was the path's."""
        self.user: User | None = None
        self.standing = -1
        self.flow: Flow | None = None
        self.epoch = -1


class QuickGets:
    """See the module's docstring. Called with each GET that the HTTP core has parsed before."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: Authorizer,
        gate: Gate | InFlight,
        kinds: Kinds,
        cache: WatchCache,
        store: Store,
        reads: Reads,
        metrics: RequestMetrics,
        aggregator: Aggregator,
        clock: Clock,
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._authorizer = authorizer
        self._standing = authorizer.standing
        self._gate = gate
        self._kinds = kinds
        self._cache = cache
        self._revision = cache.revision
        self._stored = store.current_revision
        self._reads = reads
        self._metrics = metrics
        self._remote = aggregator.services.remote
        """Group-versions that other servers answer for."""
        self._now_s = clock.monotonic_s
        self._targets: dict[str, _Target] = {}

    def __call__(self, request: Request) -> Response | None:
        """Return the answer to a GET, None if the pipeline is to find it."""
        headers = request.headers
        if request.raw_query or self._remote or not isinstance(headers, Headers):
            return None
        wanted = headers.known
        if wanted is None:
            wanted = headers.known = _wanted_media(request)
        target = self._targets.get(request.path)
        if target is None or target.kinds_at != self._kinds.revision:
            target = self._find(request)
        objects = target.objects
        media = wanted[target.custom]
        if not media or objects is None:
            return None
        began_s = self._now_s()
        try:
            user = self._authenticate(request)
        except ApiError:
            return None
        flow = self._allowed(user, target)
        if flow is None or self._revision() < self._stored():
            return None
        obj = objects.get(target.namespace, target.info.name)
        rendering = target.renderings.get(media)
        if rendering is None:
            rendering = self._rendering(target, media)
        if obj is None or len(obj.value) >= min(HEAVY_BYTES, rendering.slice_bytes):
            return None
        body = rendering.single(obj)
        level = flow.level
        if level.in_use >= level.peak:
            level.peak = level.in_use + 1
        metrics = self._metrics
        users, name = metrics.users, user.name
        if name in users:
            users[name] += 1
        else:
            metrics.authenticated(name)
        metrics.allowed += 1
        duration_s = self._now_s() - began_s
        flow.schema.counts.executed(duration_s)
        target.counters.done(200, duration_s, body)
        return Response(200, body, media, flow.headers)

    def _allowed(self, user: User, target: _Target) -> Flow | None:
        """Return the flow in which the user may have the object now; None if he may not, or not now, or not surely."""
        gate = self._gate
        standing = self._standing(user)
        flow = target.flow
        if flow is None or target.user is not user or target.standing != standing or target.epoch != gate.epoch:
            if standing is None or not self._authorizer.authorize(user, target.info).allowed:
                return None
            flow = target.flow = gate.flow_of(user, target.info)
            target.user, target.standing, target.epoch = user, standing, gate.epoch
        level = flow.level
        return flow if level.exempt or (not level.waiting and level.in_use < level.limit) else None

    def _find(self, request: Request) -> _Target:
        """Return what a path names, by the kinds that are served now."""
        path = request.path
        target = self._targets.get(path)
        if target is None:
            info = parse_request_info(request)
            target = _Target(info, self._metrics.of(info))
            if len(self._targets) >= REMEMBERED_PATHS:
                self._targets.clear()
            self._targets[path] = target
        info, known = target.info, target.kind
        kind = self._kinds.resource(info.group, info.version, info.resource) if info.is_resource else None
        if kind is None or not _is_plain(kind, info):
            target.kind = target.objects = None
        elif kind is not known:
            target.kind, target.custom, target.renderings = kind, kind.custom, {}
            target.namespace = info.namespace if kind.namespaced else ""
            target.objects = self._cache.resource(kind.storage_prefix())
            target.counters = self._metrics.of(info)
        target.kinds_at = self._kinds.revision
        return target

    def _rendering(self, target: _Target, media: str) -> Rendering:
        assert target.kind is not None
        rendering = target.renderings[media] = self._reads.plain_rendering(target.kind, Form(PLAIN, "", media))
        return rendering


def _is_plain(kind: Kind, info: RequestInfo) -> bool:
    return (
        info.verb == "get"
        and bool(info.name)
        and not info.subresource
        and not kind.virtual
        and not kind.deprecation
        and (kind.conversion is None or kind.conversion.webhook is None)
        and "get" in kind.verbs
        and kind.namespaced == bool(info.namespace and info.resource != "namespaces")
    )


def _wanted_media(request: Request) -> tuple[str, str]:
    """Return the media types in which the headers ask for whole objects of built-in and of custom kinds; "" where they
    ask for more than that."""
    if is_impersonating(request.headers) or wants_indent(request):
        return "", ""
    return _plain_media(request, custom=False), _plain_media(request, custom=True)


def _plain_media(request: Request, *, custom: bool) -> str:
    try:
        form = accepted_form(request.headers.get("accept", ""), custom=custom)
    except ApiError:
        return ""
    return form.media if form.target == PLAIN and form.media != YAML else ""
