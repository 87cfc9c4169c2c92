"""The seam of admission: plugins that change or refuse a write after authorization and before validation.

A chain runs every plugin's `mutate` in order, then the registry validates, then the chain runs every `validate`.
Built-in plugins are in plugins/, one a file; webhooks and policies are plugins too. A plugin that names the
resources that it looks at is not even called for others: most writes pass through two or three plugins.

The server's own writes (user.API_SERVER) and reviews are not for everybody: the former pass built-in plugins only, the
latter only webhooks and policies. Some subresources have a body of another kind than their object (a Scale, an Eviction). Built-in plugins see the object
that the request changes in the end; webhooks and policies (`Plugin.sees_bodies`) see the body: such a request is
admitted twice, once with `Attributes.body` set.

DIFFERS: upstream asks webhooks about the server's own writes as well, and cannot accept definitions while one is down.
Spec: Kubernetes admission controllers, "What are they?"; "Dynamic Admission Control" (reinvocation).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.user import API_SERVER, User
from tiphys.store.interface import Operation

if TYPE_CHECKING:
    from tiphys.apiserver.cache import ResourceCache

AdmissionOperation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]

OTHER_BODIES = frozenset({"scale", "eviction", "binding", "token", "exec", "attach", "portforward", "proxy"})
"""Subresources whose body (for CONNECT: whose options) is of another kind than their object."""


class Body(NamedTuple):
    """Group, version and kind of a body that is not of its resource's own kind."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Attributes(msgspec.Struct, eq=False):
    """One write under admission. Plugins change `obj` in place; `old` is never changed."""

    operation: AdmissionOperation
    kind: Kind
    """The resource, in the version that is stored: that of `obj` and `old`."""
    namespace: str
    name: str
    user: User
    obj: JsonObject | None
    old: JsonObject | None = None
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = msgspec.field(default_factory=list)
    along: Callable[[bool], list[Operation]] | None = None
    """Called with whether the object is removed; what it returns is written in the same commit."""
    finished: list[Callable[[bool], None]] = msgspec.field(default_factory=list)
    """Called once with True when the write is durable, with False when it failed: to give back reservations."""
    requested: Kind | None = None
    """The resource in the group and version that the request named; None when it is `kind`."""
    body: Body | None = None
    """What `obj` and `old` are (Scale, PodExecOptions, ...) where they are not objects of `kind`."""
    parameters: Mapping[str, Any] | None = None
    """What the request's options say: values of its query by name, or the body of a delete."""
    deadline_s: float = 0.0
    """Monotonic time at which the request must be answered; 0 for none."""
    audit: dict[str, str] | None = None
    """Audit annotations by full key, those of the request; `annotate` fills it."""
    revision: int = 0
    """Of `old`; 0 for a create."""
    name_is_generated: bool = False
    """The server made `name` from generateName just now; mutating webhooks and policies are not told it."""
    is_collection: bool = False
    """One of the deletes of a collection: webhooks and policies are told no name."""
    reinvocation: Reinvocation | None = None
    """Set while mutating plugins run; None before the first that asks for it."""

    @property
    def requested_kind(self) -> Kind:
        """Return the resource in the group and version that the request named."""
        return self.requested or self.kind

    @property
    def was_changed(self) -> bool:
        """Tell whether a webhook or policy changed the object, so that it has to be prepared anew."""
        return self.reinvocation is not None and self.reinvocation.again

    @property
    def told_name(self) -> str:
        """Return the name as webhooks and policies are told it."""
        return "" if self.is_collection else self.name

    @property
    def options(self) -> JsonObject:
        """Return the operation's options as an object of meta.k8s.io/v1; {} for CONNECT."""
        return options_object(self.operation, self.parameters, self.dry_run)

    def annotate(self, key: str, value: str) -> None:
        """Record an audit annotation; the first value of a key stays."""
        if self.audit is None:
            self.audit = {}
        self.audit.setdefault(key, value)

    def reinvoked(self) -> Reinvocation:
        """Return the record of this write's rounds of mutation."""
        if self.reinvocation is None:
            self.reinvocation = Reinvocation()
        return self.reinvocation

    def finish(self, succeeded: bool) -> None:
        for callback in self.finished:
            callback(succeeded)
        self.finished.clear()


class Reinvocation(msgspec.Struct, eq=False):
    """Rounds of mutation of one write: a change by a webhook or policy makes all mutating plugins run once more."""

    again: bool = False
    """A plugin changed the object in the first round, so there will be a second."""
    second_round: bool = False
    states: dict[str, Any] = msgspec.field(default_factory=dict)
    """What a plugin keeps between the rounds, by its name."""


class Plugin:
    """One admission plugin. Both methods raise ApiError to refuse; they are idempotent, because a write that loses
    an optimistic lock is admitted again."""

    resources: Collection[tuple[str, str]] | None = None
    """(group, plural) of the only resources that it looks at; None for all."""
    sees_bodies: bool = False
    """True for webhooks and policies: of a request whose body is of another kind they see the body."""

    def is_active(self) -> bool:
        """Tell whether it may have anything to say now; asked only of plugins that see bodies."""
        return True

    async def mutate(self, attributes: Attributes) -> None:
        """Change the object before it is validated."""

    def allocate(self, attributes: Attributes) -> None:
        """Assign what only the server gives, such as addresses: once, when all who may change the object did."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse the object as it would be stored."""


class _Chosen(NamedTuple):
    """The plugins that are asked about a resource."""

    mutating: tuple[Plugin, ...]
    allocating: tuple[Plugin, ...]
    validating: tuple[Plugin, ...]


class Chain:
    """Runs plugins in order. Those that see bodies are left out while they are not active: see `follow`."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self._plugins = tuple(plugins)
        self._seeing_bodies = [p for p in plugins if p.sees_bodies]
        self._chosen: dict[tuple[str, str, int], _Chosen] = {}

    def follow(self, resources: Iterable[ResourceCache]) -> None:
        """Ask plugins anew whether they are active after each change of these: webhook configurations, policies."""
        for resource in resources:
            resource.listeners.add(self._forget)
            resource.on_reset.add(self._forget)

    def _forget(self, *events: Any) -> None:
        self._chosen.clear()

    def looks_at_bodies(self) -> bool:
        """Tell whether a request whose body is of another kind needs to be admitted with it."""
        return any(plugin.is_active() for plugin in self._seeing_bodies)

    async def mutate(self, attributes: Attributes) -> None:
        chosen = self._choose(attributes)
        for plugin in chosen.mutating:
            await plugin.mutate(attributes)
        rounds = attributes.reinvocation
        if rounds is not None and rounds.again:
            rounds.second_round = True
            for plugin in chosen.mutating:
                await plugin.mutate(attributes)
        for plugin in chosen.allocating:
            plugin.allocate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._choose(attributes).validating:
            await plugin.validate(attributes)

    def _choose(self, attributes: Attributes) -> _Chosen:
        kind, who = attributes.kind, _ALL
        if attributes.user is API_SERVER:
            who = _BUILT_IN
        elif kind.virtual:
            who = _SEEING_BODIES
        elif attributes.subresource in OTHER_BODIES:
            who = _BUILT_IN if attributes.body is None else _SEEING_BODIES
        key = (kind.group, kind.plural, who)
        chosen = self._chosen.get(key)
        if chosen is None:
            asked = [p for p in self._plugins if _is_asked(p, (kind.group, kind.plural), who)]
            chosen = self._chosen[key] = _Chosen(
                tuple(p for p in asked if type(p).mutate is not Plugin.mutate),
                tuple(p for p in asked if type(p).allocate is not Plugin.allocate),
                tuple(p for p in asked if type(p).validate is not Plugin.validate),
            )
        return chosen


_ALL, _BUILT_IN, _SEEING_BODIES = 0, 1, 2


def _is_asked(plugin: Plugin, resource: tuple[str, str], who: int) -> bool:
    if who != _ALL and plugin.sees_bodies != (who == _SEEING_BODIES):
        return False
    if plugin.sees_bodies and not plugin.is_active():
        return False
    return plugin.resources is None or resource in plugin.resources


_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
_OPTION_TEXTS = ("fieldManager", "fieldValidation")
_DELETE_OPTIONS = (
    "gracePeriodSeconds",
    "preconditions",
    "orphanDependents",
    "propagationPolicy",
    "dryRun",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
)


def options_object(operation: AdmissionOperation, parameters: Mapping[str, Any] | None, dry_run: bool) -> JsonObject:
    """Return CreateOptions, UpdateOptions (for patches too, as upstream) or DeleteOptions as an object.

    `parameters` are lists of texts (a query) or, for a delete, also values of a body.
    """
    name = _OPTIONS.get(operation, "")
    if not name:
        return {}
    given = parameters or {}
    options: JsonObject = {"kind": name, "apiVersion": "meta.k8s.io/v1"}
    if operation == "DELETE":
        options.update((key, _delete_option(key, given[key])) for key in _DELETE_OPTIONS if given.get(key) is not None)
    else:
        options.update((key, given[key][0]) for key in _OPTION_TEXTS if given.get(key))
    if dry_run:
        options["dryRun"] = ["All"]
    return options


def _delete_option(key: str, value: Any) -> Any:
    """Return an option of a delete as its object has it, from a body or from a query."""
    if not isinstance(value, list) or key == "dryRun":
        return value
    text = value[0]
    if key == "gracePeriodSeconds":
        return int(text)
    return text in ("true", "1") if key == "orphanDependents" else text
