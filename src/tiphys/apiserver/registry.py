"""Writes: every change of a stored object goes through `create`, `update` or `delete` here.

Input is a decoded object of a `Kind` in the version of the request; output is the written object's bytes as clients
get them. Built-in kinds are defaulted, admitted and validated in the version that is stored; custom ones in the version
of the request, and converted on their way from and to the store (conversion.py), because their versions have rules of
their own. The registry decides the order of the steps (defaulting, preparation, admission, managed fields, validation,
commit) and keeps the promise of optimistic locking: what is written was computed from exactly the revision that it
replaces, or it is computed again. It never waits on a lock.

Invariant: stored bytes begin with apiVersion, kind and metadata in this order and hold no resourceVersion.

The file is long because the steps of create, update and delete are best read beside each other.

Spec: Kubernetes API concepts, "Resource versions", "Updates to existing resources", "Dry-run", "Generated values";
API conventions, "Metadata".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from tiphys.api.apply import track_update
from tiphys.api.kind import Context, JsonObject, Kind, Kinds
from tiphys.api.metadata import validate_object_meta, validate_object_meta_update
from tiphys.apiserver.admission import AdmissionOperation, Attributes, Chain
from tiphys.apiserver.body import OBJECT_LIMIT_BYTES
from tiphys.apiserver.cache import WatchCache, splice_revision
from tiphys.apiserver.cached import CachedObject, in_version
from tiphys.apiserver.conversion import Converter
from tiphys.apiserver.deletion import DeleteOptions, check_preconditions, is_removable, plan_delete
from tiphys.apiserver.heavy import HEAVY_BYTES, Heavy
from tiphys.apiserver.identity import (
    AFTER_ADMISSION,
    begin_absent,
    begin_create,
    begin_update,
    check_expected_uid,
    drop_repeated_owners,
    settle_create,
)
from tiphys.apiserver.user import User
from tiphys.base.clock import Clock, Randomness, format_time
from tiphys.base.errors import (
    ApiError,
    Cause,
    already_exists,
    conflict,
    internal,
    invalid,
    not_found,
    service_unavailable,
    too_large,
)
from tiphys.base.memory import trimmed
from tiphys.store.interface import ABSENT, Entry, ExpectationFailed, Operation, Store, StoreFailed

GENERATED_NAME_TRIES = 8
CONFLICT_TRIES = 16
GENERATED_PREFIX_LIMIT = 58
"""Characters of generateName that are kept, so that the suffix still fits a label."""

_NOT_GENERATING = frozenset({"metadata", "status"})
_NOT_BUMPING = frozenset({"status", "binding", "approval"})
"""Subresources whose writes are not changes of what the user wants."""
_STATUS_PARTS = frozenset({"status", "approval"})
_WHOLE = frozenset({"", "scale"})
"""Ways in that are a change of the object's own spec: its strategy runs as for a plain update."""


class WriteContext(msgspec.Struct, eq=False):
    """What a write needs to know of its request. `warnings` is filled and sent as Warning headers."""

    user: User
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    subresource: str = ""
    operation: str = "Update"
    """Update or Apply, for managedFields."""
    warnings: list[str] = msgspec.field(default_factory=list)
    parameters: Mapping[str, Any] | None = None
    """The options of the request as admission tells them: its query, or the body and query of a delete."""
    deadline_s: float = 0.0
    """Monotonic time at which the request must be answered; 0 for none."""
    is_collection: bool = False
    """One delete of a collection."""
    size_bytes: int = 0
    """Of the request's body: large ones are worked on beside the loop."""
    notes: dict[str, str] | None = None
    """Audit annotations of the request; None when nobody records them."""


class Written(msgspec.Struct, frozen=True, eq=False):
    """The result of a write. `obj` and `body` are in the version of `kind`; `body` has the resourceVersion in it."""

    kind: Kind
    obj: JsonObject
    body: bytes
    created: bool = False
    removed: bool = False


class Current(msgspec.Struct, frozen=True, eq=False):
    """A stored object, decoded, with the revision that a write of it must expect."""

    obj: JsonObject
    revision: int
    value: bytes
    """The bytes that `obj` was decoded from, without resourceVersion."""
    stale: bool = False
    """The stored bytes are in an older version or schema: an update that changes nothing writes them anew."""


Make = Callable[[JsonObject], JsonObject]
"""Current object in the request's version (not to be changed) -> wanted object in the request's version."""
Combine = Callable[[JsonObject, JsonObject], JsonObject]
"""(wanted, current) -> what this subresource may change of it; both in the storage version."""


class _Change(msgspec.Struct, frozen=True, eq=False):
    """One try of an update."""

    kind: Kind
    """Of the request."""
    stored: Kind
    """In whose version the update is worked on."""
    namespace: str
    name: str
    make: Make
    combine: Combine | None
    current: Current


def encode_stored(obj: JsonObject) -> bytes:
    """Return the stored form of an object (see the module's invariant). Drops resourceVersion from the object."""
    metadata = obj["metadata"]
    metadata.pop("resourceVersion", None)
    ordered = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    return trimmed(orjson.dumps(ordered))


def take_status(new: JsonObject, old: JsonObject) -> JsonObject:
    """Return `old` with the metadata and status of `new`: what a write of the status subresource may change."""
    result = {key: value for key, value in old.items() if key != "status"}
    result["metadata"] = new["metadata"]
    if "status" in new:
        result["status"] = new["status"]
    return result


class Registry:
    """See the module's docstring. One for all kinds."""

    def __init__(
        self,
        store: Store,
        cache: WatchCache,
        kinds: Kinds,
        admission: Chain,
        clock: Clock,
        randomness: Randomness,
        converter: Converter | None = None,
    ) -> None:
        self.converter = converter or Converter(randomness)
        self.heavy = Heavy()
        self.store = store
        self.cache = cache
        self.kinds = kinds
        self.admission = admission
        self.clock = clock
        self.randomness = randomness

    # Reading for writes

    def current(self, kind: Kind, namespace: str, name: str) -> Current | None:
        """Return the newest object of a built-in kind in the storage version, of a custom kind as it is stored."""
        cached = self.cache.resource(kind.storage_prefix()).get(namespace, name)
        if cached is None:
            return None
        return Current(orjson.loads(cached.value), cached.revision, cached.value)

    async def newest(self, kind: Kind, namespace: str, name: str) -> Current | None:
        """Return the newest object in the version of `working_kind(kind)`. Raises ApiError if its webhook fails."""
        working = self.working_kind(kind)
        cached = self.cache.resource(working.storage_prefix()).get(namespace, name)
        return None if cached is None else await self._open(working, cached)

    async def _open(self, working: Kind, cached: CachedObject) -> Current:
        """Decode an object of the store into a version to work on."""
        value = cached.value
        stale = cached.api_version != working.storage_api_version
        if working.conversion is None:
            obj: JsonObject = await self.heavy.run(len(value), orjson.loads, value)
            if stale and working.convert is not None:
                obj = working.convert(obj, obj["apiVersion"], working.api_version)
            obj["apiVersion"] = working.api_version
            return Current(obj, cached.revision, value, stale)
        await self.converter.prepare(working, (cached,))
        rendered = in_version(working, cached)
        assert rendered is not None, f"{cached.key} was just converted to {working.api_version}"
        stale = stale or (rendered != value and cached.api_version == working.api_version)
        obj = await self.heavy.run(len(rendered), orjson.loads, rendered)
        return Current(obj, cached.revision, rendered, stale)

    def now(self) -> str:
        """Return the time as the API writes it."""
        return format_time(self.clock.now_s())

    def storage_kind(self, kind: Kind) -> Kind:
        """Return the kind in whose version the objects of `kind` are stored."""
        return self.kinds.stored(kind)

    def working_kind(self, kind: Kind) -> Kind:
        """Return the kind in whose version a write of `kind` is defaulted, admitted and validated."""
        return kind if kind.conversion is not None else self.kinds.stored(kind)

    async def converted(self, kind: Kind, obj: JsonObject, target: Kind) -> JsonObject:
        """Return `obj` (of `kind`) in the version of `target`, by the definition's webhook where it has one.

        The argument is not changed; the result may be the argument itself or share parts with it."""
        if kind.conversion is None or kind.api_version == target.api_version:
            return self.convert(kind, obj, target)
        return await self.converter.convert(kind, orjson.loads(orjson.dumps(obj)), target.api_version)

    def convert(self, kind: Kind, obj: JsonObject, target: Kind) -> JsonObject:
        """Return `obj` (of a built-in `kind`) as an object of `target`, another version of the same resource."""
        if kind.api_version == target.api_version:
            return obj
        if kind.convert is not None:
            return kind.convert(obj, kind.api_version, target.api_version)
        return dict(obj, apiVersion=target.api_version, kind=target.kind)

    # Create

    async def create(self, kind: Kind, namespace: str, obj: JsonObject, context: WriteContext) -> Written:
        """Store a new object. Raises ApiError."""
        stored = self.working_kind(kind)
        begin_create(kind, namespace, obj)
        generate = not obj["metadata"].get("name")
        tries = GENERATED_NAME_TRIES if generate else 1
        # a try changes the object in many places, so every further one starts from a fresh copy
        pristine = orjson.dumps(obj) if generate else b""
        for attempt in range(tries):
            candidate = orjson.loads(pristine) if attempt else obj
            if generate:
                self._generate_name(candidate)
            try:
                return await self._create_once(kind, stored, namespace, candidate, context, generate)
            except ApiError as error:
                if error.reason != "AlreadyExists" or attempt == tries - 1:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _generate_name(self, obj: JsonObject) -> None:
        metadata = obj["metadata"]
        metadata["name"] = metadata["generateName"][:GENERATED_PREFIX_LIMIT] + self.randomness.suffix()

    async def _create_once(
        self, kind: Kind, stored: Kind, namespace: str, obj: JsonObject, context: WriteContext, generated: bool
    ) -> Written:
        now_s, size_bytes = self.clock.now_s(), context.size_bytes
        rules = self._context(context, now_s, creating=True)
        uid, name = self.randomness.uid(), obj["metadata"]["name"]
        obj = await self.heavy.run(size_bytes, self._begin, kind, stored, obj, uid, context, rules)
        attributes = self._attributes("CREATE", kind, stored, namespace, name, context, obj, None)
        attributes.name_is_generated = generated
        succeeded = False
        try:
            await self.admission.mutate(attributes)
            size_bytes = _weight(stored, obj, size_bytes)
            value, warnings = await self.heavy.run(size_bytes, self._check_created, attributes, rules)
            name = attributes.name
            await self.admission.validate(attributes)
            context.warnings.extend(warnings)
            if context.dry_run:
                if self.current(stored, namespace, name) is not None:
                    raise already_exists(stored.group, stored.plural, name)
                return Written(stored, obj, value, created=True)
            to_store = await self._as_stored(stored, value)
            try:
                operation = Operation(stored.storage_key(namespace, name), to_store, ABSENT)
                revision = await self._commit_admitted(operation, attributes)
            except ExpectationFailed:
                raise already_exists(stored.group, stored.plural, name) from None
            succeeded = True
            return Written(stored, obj, splice_revision(value, revision), created=True)
        finally:
            attributes.finish(succeeded)

    def _begin(
        self, kind: Kind, stored: Kind, obj: JsonObject, uid: str, context: WriteContext, rules: Context
    ) -> JsonObject:
        """Return a new object in the version to work on, with its defaults, what only the server sets, and the owner of
        its fields: who writes owns what he wrote, not what admission adds."""
        strategy = stored.strategy
        obj = self.convert(kind, obj, stored)
        metadata = obj["metadata"]
        metadata["uid"] = uid
        metadata["creationTimestamp"] = rules.now
        if strategy.generation:
            metadata["generation"] = 1
        else:
            metadata.pop("generation", None)
        strategy.default(obj)
        self._track(stored, {}, obj, context, rules.now)
        return obj

    def _check_created(self, attributes: Attributes, rules: Context) -> tuple[bytes, Sequence[str]]:
        """Finish and validate what plugins made of a new object; return it encoded, and warnings. Raises ApiError."""
        stored, obj = attributes.kind, attributes.obj
        assert obj is not None
        strategy = stored.strategy
        strategy.default(obj)
        if attributes.was_changed:
            attributes.name = settle_create(stored, attributes.namespace, obj)
        repeated = drop_repeated_owners(obj, AFTER_ADMISSION)
        strategy.prepare_for_create(obj, rules)
        causes = [*validate_object_meta(obj, stored, stored.namespaced), *strategy.validate(obj, rules)]
        if causes:
            raise invalid(stored.group, stored.kind, attributes.name, causes)
        return self._encode(stored, obj), [*repeated, *strategy.warnings(obj)]

    # Update

    async def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        make: Make,
        context: WriteContext,
        *,
        combine: Combine | None = None,
        uid: str = "",
        create_absent: bool = False,
    ) -> Written:
        """Change an object: `make` computes the wanted one from the current one, as often as others write between.

        A wanted object with a resourceVersion other than the current one is a conflict. `combine` limits what the
        subresource may change. With `create_absent`, an absent object is created from `make({})`. With `uid`, an object
        with another one, or none, is a conflict.
        """
        stored = self.working_kind(kind)
        current = await self.newest(stored, namespace, name)
        for _ in range(CONFLICT_TRIES):
            check_expected_uid(kind, namespace, name, uid, None if current is None else current.obj)
            if current is None:
                if not create_absent:
                    raise not_found(kind.group, kind.plural, name)
                wanted = await self.heavy.run(context.size_bytes, make, {})
                begin_absent(kind, name, wanted)
                return await self.create(kind, namespace, wanted, context)
            try:
                return await self._update_once(kind, stored, namespace, name, make, combine, current, context)
            except ExpectationFailed as error:
                current = await self._reopen(stored, error.current)
        raise conflict(kind.group, kind.plural, name)

    async def _update_once(
        self,
        kind: Kind,
        stored: Kind,
        namespace: str,
        name: str,
        make: Make,
        combine: Combine | None,
        current: Current,
        context: WriteContext,
    ) -> Written:
        now_s, old, size_bytes = self.clock.now_s(), current.obj, max(context.size_bytes, len(current.value))
        rules = self._context(context, now_s)
        change = _Change(kind, stored, namespace, name, make, combine, current)
        new = await self.heavy.run(size_bytes, self._wanted, change, context, rules)
        attributes = self._attributes("UPDATE", kind, stored, namespace, name, context, new, old)
        attributes.revision = current.revision
        succeeded = False
        try:
            await self.admission.mutate(attributes)
            size_bytes = _weight(stored, new, size_bytes)
            value, warnings = await self.heavy.run(size_bytes, self._check_updated, attributes, change, rules)
            await self.admission.validate(attributes)
            if value is None:
                return Written(stored, old, splice_revision(current.value, current.revision))
            context.warnings.extend(warnings)
            assert attributes.obj is not None
            new = attributes.obj
            remove = is_removable(stored, new)
            if context.dry_run:
                return Written(stored, new, splice_revision(value, current.revision), removed=remove)
            key = stored.storage_key(namespace, name)
            to_store = None if remove else await self._as_stored(stored, value)
            operation = Operation(key, to_store, current.revision)
            revision = await self._commit_admitted(operation, attributes)
            succeeded = True
            return Written(stored, new, splice_revision(value, revision), removed=remove)
        finally:
            attributes.finish(succeeded)

    def _wanted(self, change: _Change, context: WriteContext, rules: Context) -> JsonObject:
        """Return what an update wants the object to be, with its defaults, what the server keeps, and the owners of its
        fields. Raises ApiError."""
        stored, old = change.stored, change.current.obj
        shown = self.convert(stored, _shown(stored, change.current), change.kind)
        new = self.convert(change.kind, change.make(shown), stored)
        begin_update(change.kind, change.namespace, change.name, new, old, change.current.revision)
        if change.combine is not None:
            new = change.combine(new, old)
        stored.strategy.default(new)
        self._track(stored, old, new, context, rules.now)
        return new

    def _check_updated(
        self, attributes: Attributes, change: _Change, rules: Context
    ) -> tuple[bytes | None, Sequence[str]]:
        """Finish and validate what plugins made of an update; return it encoded (None: nothing changes), and warnings.

        Raises ApiError."""
        stored, old, new = change.stored, change.current.obj, attributes.obj
        assert new is not None
        if attributes.was_changed:
            begin_update(change.kind, change.namespace, change.name, new, old, change.current.revision, locked=True)
            new = attributes.obj = new if change.combine is None else change.combine(new, old)
            stored.strategy.default(new)
        repeated = drop_repeated_owners(new, AFTER_ADMISSION)
        self._prepare_update(stored, new, old, rules)
        self._bump_generation(stored, new, old, rules.subresource)
        if new == old and not change.current.stale:
            return None, ()
        causes = self._validate_update(stored, new, old, rules)
        if causes:
            raise invalid(stored.group, stored.kind, change.name, causes)
        strategy = stored.strategy
        told = strategy.warnings(new) if strategy.update_warnings is None else strategy.update_warnings(new, old)
        return self._encode(stored, new), [*repeated, *told]

    def _prepare_update(self, stored: Kind, new: JsonObject, old: JsonObject, rules: Context) -> None:
        if rules.subresource in _STATUS_PARTS:
            stored.strategy.prepare_for_status_update(new, old, rules)
        elif rules.subresource != "binding":  # a binding sets what an update may not change
            stored.strategy.prepare_for_update(new, old, rules)

    def _bump_generation(self, stored: Kind, new: JsonObject, old: JsonObject, subresource: str) -> None:
        if not stored.strategy.generation or subresource in _NOT_BUMPING:
            return
        ours = {k: v for k, v in new.items() if k not in _NOT_GENERATING}
        theirs = {k: v for k, v in old.items() if k not in _NOT_GENERATING}
        if ours != theirs:
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def _validate_update(self, stored: Kind, new: JsonObject, old: JsonObject, rules: Context) -> list[Cause]:
        strategy = stored.strategy
        causes = validate_object_meta_update(new, old, changes_only=True)
        causes += [c for c in validate_object_meta(new, stored, stored.namespaced) if c not in causes]
        if rules.subresource in _STATUS_PARTS:
            return causes + strategy.validate_status_update(new, old, rules)
        causes += strategy.validate(new, rules)
        if rules.subresource == "binding":
            return causes  # sets what an update may not change
        return causes + strategy.validate_update(new, old, rules)

    # Delete

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions, context: WriteContext
    ) -> Written:
        """Delete an object or mark it as being deleted. Raises ApiError."""
        stored = self.working_kind(kind)
        current = await self.newest(stored, namespace, name)
        for _ in range(CONFLICT_TRIES):
            if current is None:
                raise not_found(kind.group, kind.plural, name)
            check_preconditions(kind, name, current.obj, current.revision, options)
            try:
                return await self._delete_once(kind, stored, namespace, name, options, current, context)
            except ExpectationFailed as error:
                current = await self._reopen(stored, error.current)
        raise conflict(kind.group, kind.plural, name)

    async def _delete_once(
        self,
        kind: Kind,
        stored: Kind,
        namespace: str,
        name: str,
        options: DeleteOptions,
        current: Current,
        context: WriteContext,
    ) -> Written:
        attributes = self._attributes("DELETE", kind, stored, namespace, name, context, None, current.obj)
        attributes.parameters, attributes.dry_run = options.given, options.dry_run
        attributes.revision, attributes.is_collection = current.revision, context.is_collection
        succeeded = False
        try:
            await self.admission.mutate(attributes)
            await self.admission.validate(attributes)
            plan = plan_delete(stored, current.obj, options, self.clock.now_s())
            result = plan.update if plan.update is not None else current.obj
            value = await self.heavy.run(len(current.value), encode_stored, result)
            if options.dry_run or (not plan.remove and plan.update is None):
                return Written(stored, result, splice_revision(value, current.revision), removed=plan.remove)
            to_store = None if plan.remove else await self._as_stored(stored, value)
            operation = Operation(stored.storage_key(namespace, name), to_store, current.revision)
            revision = await self._commit_admitted(operation, attributes)
            succeeded = True
            return Written(stored, result, splice_revision(value, revision), removed=plan.remove)
        finally:
            attributes.finish(succeeded)

    # Steps that all writes share

    async def _reopen(self, working: Kind, entry: Entry | None) -> Current | None:
        """Return what another writer stored meanwhile."""
        if entry is None:
            return None
        namespace, _, name = entry.key[len(working.storage_prefix()) :].rpartition("/")
        return await self._open(working, CachedObject(entry.key, namespace, name, entry.value, entry.revision))

    async def _as_stored(self, working: Kind, value: bytes) -> bytes:
        """Return an encoded object in the version that is stored. Raises ApiError if its webhook fails."""
        if working.conversion is None or working.api_version == working.storage_api_version:
            return value
        obj = await self.converter.convert(working, orjson.loads(value), working.storage_api_version)
        return self._encode(working, obj)

    async def _commit(self, operations: list[Operation]) -> int:
        """Commit and wait until this server's own reads show it."""
        try:
            revision = await self.store.commit(operations)
        except StoreFailed as error:
            raise service_unavailable(
                f"the store did not take the write, nothing was changed: {error}; try again when it has space"
            ) from error
        await self.cache.wait_for(revision)
        return revision

    async def _commit_admitted(self, operation: Operation, attributes: Attributes) -> int:
        """Commit; reservations of admission outlive a cancelled request until its write is decided and visible."""
        operations = [operation]
        if attributes.along is not None:
            operations += attributes.along(operation.value is None)
        if not attributes.finished:
            return await self._commit(operations)
        task = asyncio.ensure_future(self._commit(operations))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                held, attributes.finished = attributes.finished, []
                task.add_done_callback(lambda done: _give_back(held, done))
            raise

    def _encode(self, stored: Kind, obj: JsonObject) -> bytes:
        try:
            value = encode_stored(obj)
        except orjson.JSONEncodeError as error:
            raise internal(f"{stored.kind} cannot be encoded: {error}") from error
        if len(value) > OBJECT_LIMIT_BYTES:
            raise too_large(
                f"Request is too large: the object is {len(value)} bytes as stored, {OBJECT_LIMIT_BYTES} are allowed"
            )
        return value

    def _context(self, context: WriteContext, now_s: float, *, creating: bool = False) -> Context:
        return Context(
            context.user.name,
            format_time(now_s),
            "" if context.subresource in _WHOLE else context.subresource,
            context.dry_run,
            self.kinds.kubernetes_version,
            creating,
            context.user,
        )

    def _attributes(
        self,
        operation: AdmissionOperation,
        kind: Kind,
        stored: Kind,
        namespace: str,
        name: str,
        context: WriteContext,
        obj: JsonObject | None,
        old: JsonObject | None,
    ) -> Attributes:
        return Attributes(
            operation,
            stored,
            namespace,
            name,
            context.user,
            obj,
            old,
            context.subresource,
            context.dry_run,
            context.warnings,
            requested=kind,
            parameters=context.parameters,
            deadline_s=context.deadline_s,
            audit=context.notes,
        )

    def _track(self, stored: Kind, old: JsonObject, new: JsonObject, context: WriteContext, now: str) -> None:
        if context.operation == "Apply" or context.subresource == "binding":
            return  # the apply itself wrote managedFields; what a binding sets belongs to nobody
        resets_status = not context.subresource and stored.subresource("status") is not None
        track_update(
            old or None,
            new,
            manager=context.field_manager,
            operation="Update",
            subresource=context.subresource,
            api_version=stored.api_version,
            now=now,
            schema=stored.schema,
            ignore=("status",) if resets_status else (),
        )


def _weight(stored: Kind, obj: JsonObject, size_bytes: int) -> int:
    """Return how many bytes an object's validation is worth: rules of its kind may make a small one heavy."""
    is_heavy = stored.strategy.is_heavy
    return max(size_bytes, HEAVY_BYTES) if is_heavy is not None and is_heavy(obj) else size_bytes


def _give_back(held: list[Callable[[bool], None]], done: asyncio.Future[int]) -> None:
    """Finish the reservations of a write whose request was cancelled."""
    succeeded = not done.cancelled() and done.exception() is None
    for callback in held:
        callback(succeeded)


def _shown(stored: Kind, current: Current) -> JsonObject:
    """Return a fresh copy of the object for `make` to build on, with its resourceVersion."""
    value = encode_stored(current.obj) if current.stale and stored.conversion is None else current.value
    shown: JsonObject = orjson.loads(splice_revision(value, current.revision))
    return shown
