"""What a resource is: one record for built-in kinds and for custom ones.

A `Kind` is one (group, version, kind). Kinds of one group and plural in several versions share their stored objects:
they have the same `storage_version`, and `convert` maps between versions. Tables of built-in kinds are in
api/kinds/; a CustomResourceDefinition makes the same record at run time. Nothing is registered by import: the API
server gets a `Kinds` table passed in.

JSON objects are plain dicts here (`JsonObject`): schema, defaulting, validation and strategies are functions over
them. The registry (apiserver/registry.py) decides the order in which they run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tiphys.api.schemanode import Node
from tiphys.base.errors import Cause

JsonObject = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a strategy may know of the request besides the objects."""

    user: str
    now: str
    """RFC 3339 time of the request, for fields such as deletionTimestamp."""
    subresource: str = ""
    dry_run: bool = False
    kubernetes_version: tuple[int, int] = (1, 37)
    creating: bool = False
    """True while a new object is validated: some rules do not bind objects that are already stored."""
    requester: Requester | None = None
    """All that is known of the user; None where nobody asks, as in a check of a pod's template."""


class Requester(Protocol):
    """Who asks, as authentication found it."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def groups(self) -> Sequence[str]: ...
    @property
    def extra(self) -> Mapping[str, Sequence[str]]: ...


class Schema(Protocol):
    """A compiled structural schema of one kind (api/schema.py makes it from definitions or from a CRD)."""

    @property
    def root(self) -> Node:
        """The node tree, for strategic patches and field ownership."""
        ...

    def decode(self, obj: JsonObject) -> DecodeResult:
        """Check types and drop unknown fields, in place. Never raises for bad data: see DecodeResult."""
        ...

    def node(self, path: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the (resolved) definition at a field path, for merge keys and list types."""
        ...


class CustomSchema(Schema, Protocol):
    """A schema that knows its defaults: those of custom resources (api/structural.py)."""

    def default_from_schema(self, obj: JsonObject) -> None:
        """Fill the defaults that the schema gives, in place."""
        ...


class DecodeResult(msgspec.Struct, frozen=True, gc=False):
    """`type_errors` make the request a 400; `unknown_fields` are reported as fieldValidation says.

    Type errors are upstream's wording after "cannot be handled as a X: ", e.g.
    `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    Unknown fields are paths such as `spec.template.spec.containers[0].imagePullPolici`.
    """

    type_errors: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a server-side table. `cells` of a kind are computed by `Kind.row`."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    """0: always shown; 1: with -o wide."""


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource as discovery tells it. What it does is decided by its name in the API server's routing."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    """Kind of its body when it differs from the parent's, e.g. Scale; with group and version below."""
    group: str = ""
    version: str = ""


def _nothing(obj: JsonObject) -> None:
    return None


def _no_causes(obj: JsonObject, context: Context) -> list[Cause]:
    return []


def _no_update_causes(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    return []


def _no_warnings(obj: JsonObject) -> list[str]:
    return []


def _as_is_create(obj: JsonObject, context: Context) -> None:
    return None


def _as_is_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Strategy:
    """The rules of one kind beyond its schema. All functions are pure but for changing the object that they prepare.

    Order in the registry for create: default, (mutating admission), prepare_for_create, validate, (validating
    admission), warnings. For update: default, (mutating admission), prepare_for_update, validate, validate_update.
    For the status subresource: default, prepare_for_status_update, validate_status_update.
    metadata (name, labels, ownerReferences, ...) is validated by the registry for all kinds alike.
    """

    default: Callable[[JsonObject], None] = _nothing
    prepare_for_create: Callable[[JsonObject, Context], None] = _as_is_create
    """Clear what a creator may not set (status), fill what only the server sets."""
    prepare_for_update: Callable[[JsonObject, JsonObject, Context], None] = _as_is_update
    """Keep what an update may not change silently (status); (new, old)."""
    prepare_for_status_update: Callable[[JsonObject, JsonObject, Context], None] = _as_is_update
    """Keep everything but status; (new, old). The registry already took metadata and spec from old if the kind has
    the common shape; for others this hook does it."""
    validate: Callable[[JsonObject, Context], list[Cause]] = _no_causes
    validate_update: Callable[[JsonObject, JsonObject, Context], list[Cause]] = _no_update_causes
    validate_status_update: Callable[[JsonObject, JsonObject, Context], list[Cause]] = _no_update_causes
    warnings: Callable[[JsonObject], list[str]] = _no_warnings
    update_warnings: Callable[[JsonObject, JsonObject], list[str]] | None = None
    """Warnings of an update where they are not those of the new object alone; (new, old)."""
    name_rule: str = "dns-subdomain"
    """dns-subdomain, dns-label, dns-1035-label, path-segment (RBAC names) or pod (subdomain): names.py has each."""
    generation: bool = False
    """metadata.generation starts at 1 and grows when anything but metadata and status changes."""
    allow_create_on_update: bool = False
    allow_unconditional_update: bool = True
    graceful_delete_s: Callable[[JsonObject], int] | None = None
    """Seconds of grace by default (pods); None: deleted at once when no finalizer holds it."""
    default_propagation: str = "Background"
    is_heavy: Callable[[JsonObject], bool] | None = None
    """Whether validating this object may take long though it is small; None: never."""
    prepare_for_delete: Callable[[JsonObject, str], JsonObject] | None = None
    """(object, time of the request as RFC 3339) -> the object as its first DELETE leaves it, for kinds that hold their
    objects themselves until something is cleaned up. The argument is not changed."""


def no_row(obj: JsonObject, now_s: float) -> list[Any]:
    """Return the cells of a kind without columns of its own: name and age are the registry's."""
    return []


@dataclass(frozen=True, slots=True)
class CustomConversion:
    """What a CustomResourceDefinition says of its versions: one record for all of its kinds."""

    schemas: Mapping[str, CustomSchema]
    """By apiVersion; of all versions, served or not."""
    webhook: Mapping[str, Any] | None = None
    """`spec.conversion.webhook` with the strategy Webhook; None: versions differ in apiVersion alone."""
    since: int = 0
    """The definition's revision: objects written later already fit the schemas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One served version of one resource. See the module's docstring."""

    group: str
    version: str
    kind: str
    plural: str
    """Name of the resource; "" for a kind that is only the body of a subresource (Scale, Eviction, TokenRequest)."""
    singular: str = ""
    list_kind: str = ""
    """Kind of its lists; "" means the kind and "List"."""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    storage_version: str = ""
    """The version in which objects are stored; "" means this one."""
    storage_group: str | None = None
    """The group in which objects are stored, where it is another one: events of events.k8s.io are those of the core
    group (""). None means this kind's own group."""
    schema: Schema
    strategy: Strategy = field(default_factory=Strategy)
    columns: tuple[Column, ...] = ()
    """All columns in order, Name first and Age where upstream has it. () means Name and Created At."""
    row: Callable[[JsonObject, float], list[Any]] = no_row
    """(object, now in Unix seconds) -> one cell for each of `columns`."""
    row_conditions: Callable[[JsonObject], Sequence[JsonObject]] | None = None
    """object -> what its row says beside the cells: that a pod has ended. None: nothing for any object."""
    selectable_fields: Mapping[str, Callable[[JsonObject], str]] = field(default_factory=dict)
    """Field label -> text of its value; metadata.name and metadata.namespace are always there and not listed."""
    convert: Callable[[JsonObject, str, str], JsonObject] | None = None
    """(object, from apiVersion, to apiVersion) -> new object with the new apiVersion; the argument is not changed.
    None: versions differ in nothing but apiVersion."""
    definition: str = ""
    """Name of the kind in the OpenAPI definitions, e.g. io.k8s.api.apps.v1.Deployment."""
    published_schema: Mapping[str, Any] | None = None
    """Schema of a custom kind as its definition gives it (OpenAPI v3), for OpenAPI documents; None for built-in kinds,
    whose schema is found by `definition`."""
    deprecation: str = ""
    """The warning that every request of this version gets; "" for none."""
    virtual: bool = False
    """True for kinds that are answered and not stored (reviews)."""
    conversion: CustomConversion | None = None
    """How stored objects of a custom kind become those of this version; None for built-in kinds."""
    scale_paths: tuple[str, str, str] | None = None
    """Dotted paths of spec replicas, status replicas and selector ("" for none) for the scale subresource. The
    selector may be a string (custom resources), a LabelSelector object, or a plain map of labels."""
    custom: bool = False
    _prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        group = self.group if self.storage_group is None else self.storage_group
        object.__setattr__(self, "_prefix", f"/registry/{group or 'core'}/{self.plural}/")
        if not self.list_kind:
            object.__setattr__(self, "list_kind", f"{self.kind}List")

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_as(self) -> str:
        return self.storage_version or self.version

    @property
    def storage_api_version(self) -> str:
        """Return the apiVersion that stored objects carry."""
        group = self.group if self.storage_group is None else self.storage_group
        return f"{group}/{self.stored_as}" if group else self.stored_as

    def storage_prefix(self) -> str:
        """Return `/registry/<group>/<plural>/`, where the core group is written `core`."""
        return self._prefix

    def storage_key(self, namespace: str, name: str) -> str:
        return f"{self._prefix}{namespace}/{name}" if self.namespaced else f"{self._prefix}{name}"

    def subresource(self, name: str) -> Subresource | None:
        return next((s for s in self.subresources if s.name == name), None)


class Kinds:
    """The table of served kinds. Built-in kinds are there from the start; custom ones come and go."""

    def __init__(self, kinds: Sequence[Kind], kubernetes_version: tuple[int, int]) -> None:
        self.kubernetes_version = kubernetes_version
        self.revision = 0
        """Grows with every change; caches of discovery and OpenAPI documents compare it."""
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        """Serve a kind, in place of an earlier one of the same group, version and plural.

        A kind without a plural is found by `by_kind` only: discovery does not tell it."""
        if kind.plural:
            self._by_resource[kind.group, kind.version, kind.plural] = kind
        self._by_kind[kind.group, kind.version, kind.kind] = kind
        self.revision += 1

    def remove(self, kind: Kind) -> None:
        self._by_resource.pop((kind.group, kind.version, kind.plural), None)
        self._by_kind.pop((kind.group, kind.version, kind.kind), None)
        self.revision += 1

    def resource(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_resource.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        return self._by_kind.get((group, version, kind))

    def stored(self, kind: Kind) -> Kind:
        """Return the record of the version (and group) in which the objects of a kind are stored."""
        group = kind.group if kind.storage_group is None else kind.storage_group
        return self._by_resource.get((group, kind.stored_as, kind.plural), kind)

    def all(self) -> list[Kind]:
        return list(self._by_resource.values())

    def versions_of(self, group: str, plural: str) -> list[Kind]:
        return [k for k in self._by_resource.values() if k.group == group and k.plural == plural]
