"""Resource requests: from a verb and a path to the registry or to reads, for every kind alike.

Subresources that are not simply a part of the object (scale, binding, eviction, token, log, exec, ...) and virtual
kinds (reviews) are handlers in a table that is passed in; this file knows none of them by name but the parts of an
object: status, finalize, ephemeralcontainers, resize, approval.

Spec: Kubernetes API concepts, "API verbs", "Deleting resources".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import orjson

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.body import (
    check_kind,
    decode_object,
    dry_run_of,
    field_manager_of,
    field_validation_of,
    go_type,
    media_type,
    parse_body,
    text_body,
)
from tiphys.apiserver.deadlines import LONG_RUNNING_SUBRESOURCES
from tiphys.apiserver.deletion import DeleteOptions, parse_delete_options
from tiphys.apiserver.identity import check_target, drop_repeated_owners
from tiphys.apiserver.negotiation import accepted_form
from tiphys.apiserver.patching import APPLY_CBOR, APPLY_PATCH, make_apply, make_patch
from tiphys.apiserver.presenting import present
from tiphys.apiserver.reads import Reads, has_table
from tiphys.apiserver.registry import Combine, Make, Registry, WriteContext, Written, take_status
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.errors import ApiError, Cause, bad_request, invalid, method_not_allowed, not_found, path_not_found
from tiphys.wire.message import Answer, Request, Response, Stream

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
DELETES_AT_ONCE = 8
"""Objects of one deletecollection that are deleted at the same time, so that the store commits them in groups: one takes
a millisecond or two of the loop's turn."""
_RETURNS_DELETED = frozenset(
    {
        "pods",
        "podtemplates",
        "persistentvolumes",
        "persistentvolumeclaims",
        "resourcequotas",
        "serviceaccounts",
        "services",
        "storageclasses",
        "volumeattachments",
        "csinodes",
        "csidrivers",
    }
)
"""Kinds whose DELETE answers with the object that was removed; the others answer with a Status."""


WARNINGS_LIMIT = 4096
"""Characters of all warnings of an answer; when there are more, each is cut and only the first are sent."""
WARNING_LIMIT = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPED, _ESCAPE = re.compile(r'["\\]'), r"\\\g<0>"


class Call(msgspec.Struct, frozen=True, eq=False):
    """One resource request with all that a subresource handler needs."""

    request: Request
    info: RequestInfo
    user: User
    kind: Kind
    registry: Registry
    reads: Reads

    def context(self, subresource: str = "") -> WriteContext:
        """Return the write context that the request's parameters ask for. Raises ApiError, for an answer that the
        client would not accept as well: nothing is written then."""
        kind, accept = self.kind, self.request.headers.get("accept", "")
        accepted_form(accept, custom=kind.custom and subresource != "scale", tables=has_table(kind))
        return WriteContext(
            self.user,
            dry_run_of(self.request),
            field_manager_of(self.request),
            field_validation_of(self.request),
            subresource,
            parameters=self.request.query if self.request.raw_query else None,
            deadline_s=self.request.deadline_s,
            size_bytes=len(self.request.body),
            notes=self.request.notes,
        )

    def body(self, kind: Kind, context: WriteContext) -> JsonObject:
        """Return the request's body as a checked object of `kind`. Raises ApiError."""
        obj = check_kind(parse_body(self.request, kind.kind), kind)
        decode_object(obj, kind, context.field_validation, text_body(self.request), context.warnings)
        return obj

    async def read_body(self, context: WriteContext) -> JsonObject:
        """Return the request's body as `body` does; a large one is read beside the loop."""
        return await self.registry.heavy.run(len(self.request.body), self.body, self.kind, context)


SubresourceHandler = Callable[[Call], Awaitable[Answer]]


def take_spec_finalizers(new: JsonObject, old: JsonObject) -> JsonObject:
    """Return `old` with the spec.finalizers of `new`: what a namespace's finalize subresource may change."""
    spec = dict(old.get("spec") or {})
    spec["finalizers"] = (new.get("spec") or {}).get("finalizers") or []
    return dict(old, metadata=new["metadata"], spec=spec)


def take_ephemeral_containers(new: JsonObject, old: JsonObject) -> JsonObject:
    """Return `old` with the ephemeral containers of `new`."""
    spec = dict(old.get("spec") or {})
    spec["ephemeralContainers"] = (new.get("spec") or {}).get("ephemeralContainers") or []
    return dict(old, metadata=new["metadata"], spec=spec)


def take_everything(new: JsonObject, old: JsonObject) -> JsonObject:
    """Return `new`: the kind's own strategy says what the subresource may change."""
    return new


PARTS: Mapping[str, Combine] = {
    "status": take_status,
    "finalize": take_spec_finalizers,
    "ephemeralcontainers": take_ephemeral_containers,
    "resize": take_everything,
    "approval": take_status,
}
"""Subresources that are a part of the object: what each may change."""


BODY_LIMIT_BYTES = 3 * 1024 * 1024
"""Of a body that was to go on to another server and is answered here after all."""


class Resources:
    """The ResourceHandler of the pipeline. `subresources` is keyed by (resource.group, subresource); "*" for any
    resource. `virtual` is keyed by (group, plural). `aggregator` knows what other servers answer for."""

    def __init__(
        self,
        kinds: Kinds,
        registry: Registry,
        reads: Reads,
        subresources: Mapping[tuple[str, str], SubresourceHandler],
        virtual: Mapping[tuple[str, str], SubresourceHandler],
        aggregator: Aggregator | None = None,
    ) -> None:
        self._kinds = kinds
        self._registry = registry
        self._reads = reads
        self._subresources = subresources
        self._virtual = virtual
        self._aggregator = aggregator
        self._remote = aggregator.services.remote if aggregator is not None else {}

    async def __call__(self, request: Request, info: RequestInfo, user: User) -> Answer:
        if self._remote and self._aggregator is not None:
            service = self._aggregator.find(request.path)
            if service is not None:
                return await self._aggregator.forward(request, user, service)
        if request.stream is not None and info.subresource != "proxy":
            # whose APIService went away since its head was read
            request.body, request.stream = await request.stream.read_all(BODY_LIMIT_BYTES), None
        if request.method not in METHODS and info.subresource != "proxy":
            raise method_not_allowed()
        kind = self._kinds.resource(info.group, info.version, info.resource)
        if kind is None:
            raise path_not_found()
        if bool(info.namespace) and not kind.namespaced and info.resource != "namespaces":
            raise path_not_found()
        plain = not (info.subresource or kind.virtual or kind.deprecation)
        if plain and info.verb == "get" and kind.namespaced == bool(info.namespace) and "get" in kind.verbs:
            # most requests are this: what follows would find the same, a few microseconds later
            return await self._reads.get_object(kind, info.namespace, info.name, request)
        call = Call(request, info, user, kind, self._registry, self._reads)
        if kind.deprecation:
            return with_warning(await self._answer(call), kind.deprecation)
        return await self._answer(call)

    async def _answer(self, call: Call) -> Answer:
        request, info, kind = call.request, call.info, call.kind
        if info.subresource:
            answer = await self._subresource(call)
            if info.subresource in LONG_RUNNING_SUBRESOURCES or not isinstance(answer, Response):
                return answer  # what another server says goes on as it came
            return present(answer, request)
        if kind.virtual:
            handler = self._virtual.get((kind.group, kind.plural))
            if handler is None or info.verb not in kind.verbs:
                raise method_not_allowed()
            answer = await handler(call)
            return present(answer, request) if isinstance(answer, Response) else answer
        return await self._object(call)

    async def _object(self, call: Call) -> Answer:
        info, kind = call.info, call.kind
        verb = info.verb
        if kind.namespaced and info.name and not info.namespace:
            raise path_not_found()
        if verb not in kind.verbs or (kind.namespaced and not info.namespace and verb not in ("list", "watch")):
            raise _not_served(kind, verb)
        namespace = info.namespace if kind.namespaced else ""
        if verb == "get":
            return await self._reads.get_object(kind, namespace, info.name, call.request)
        if verb == "list":
            return await self._reads.list_objects(kind, namespace, call.request)
        if verb == "watch":
            return await self._reads.watch_objects(kind, namespace, call.request, name=info.name)
        if verb == "create":
            if info.name:
                raise method_not_allowed()
            return await self._create(call, namespace)
        if verb in ("update", "patch"):
            if not info.name:
                raise method_not_allowed()
            return await write_part(call, namespace, "", None)
        if verb == "delete":
            return await self._delete(call, namespace)
        return await self._delete_collection(call, namespace)

    async def _subresource(self, call: Call) -> Answer:
        kind, info = call.kind, call.info
        name = info.subresource
        resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        known = kind.subresource(name.partition("/")[0])
        if known is None:
            raise not_found(kind.group, kind.plural, info.name) if kind.custom else path_not_found()
        handler = self._subresources.get((resource, name)) or self._subresources.get(("*", name))
        if handler is not None:
            return await handler(call)
        combine = PARTS.get(name)
        if combine is None or info.verb not in ("get", "update", "patch"):
            raise method_not_allowed()
        namespace = info.namespace if kind.namespaced else ""
        if info.verb == "get":
            return await self._reads.get_object(kind, namespace, info.name, call.request)
        return await write_part(call, namespace, name, combine)

    async def _create(self, call: Call, namespace: str) -> Response:
        context = call.context()
        obj = await call.read_body(context)
        context.warnings += drop_repeated_owners(obj)
        written = await self._registry.create(call.kind, namespace, obj, context)
        return await answer_written(call, written, context)

    async def _delete(self, call: Call, namespace: str) -> Response:
        context = call.context()
        options = delete_options(call.request)
        written = await self._registry.delete(call.kind, namespace, call.info.name, options, context)
        if written.removed and call.kind.plural not in _RETURNS_DELETED:
            status = deleted_status(call.kind, written.obj)
            return present(Response(200, status, headers=warning_headers(context.warnings)), call.request)
        return await answer_written(call, written, context)

    async def _delete_collection(self, call: Call, namespace: str) -> Answer:
        context = call.context()
        context.is_collection = True
        options = delete_options(call.request)
        listed = await self._reads.select(call.kind, namespace, call.request)
        for start in range(0, len(listed), DELETES_AT_ONCE):
            some = listed[start : start + DELETES_AT_ONCE]
            await asyncio.gather(*(self._delete_listed(call, c.namespace, c.name, options, context) for c in some))
        answer = await self._reads.render_list(call.kind, listed, self._registry.cache.revision(), call.request)
        if context.warnings and isinstance(answer, Response | Stream):
            answer.headers = [*answer.headers, *warning_headers(context.warnings)]
        return answer

    async def _delete_listed(
        self, call: Call, namespace: str, name: str, options: DeleteOptions, context: WriteContext
    ) -> None:
        try:
            await self._registry.delete(call.kind, namespace, name, options, context)
        except ApiError as error:
            if error.code != 404:  # gone meanwhile is what was wanted
                raise


def _not_served(kind: Kind, verb: str) -> ApiError:
    if not kind.custom:
        return method_not_allowed()
    resource = f"{kind.plural}.{kind.group}"
    return ApiError(
        405,
        "MethodNotAllowed",
        f'{verb} is not supported on resources of kind "{resource}"',
        details={"group": kind.group, "kind": kind.plural},
    )


async def write_part(call: Call, namespace: str, subresource: str, combine: Combine | None) -> Response:
    """Answer PUT or PATCH of an object or of a part of it."""
    context = call.context(subresource)
    registry, kind, name = call.registry, call.kind, call.info.name
    if call.info.verb == "update":
        obj = await call.read_body(context)
        check_target(kind, namespace, name, obj)
        context.warnings += drop_repeated_owners(obj)
        make: Make = lambda current: orjson.loads(orjson.dumps(obj))  # noqa: E731
        create_absent = not subresource and kind.strategy.allow_create_on_update
        written = await registry.update(
            kind,
            namespace,
            name,
            make,
            context,
            combine=combine,
            uid=obj["metadata"].get("uid") or "",
            create_absent=create_absent,
        )
    elif is_apply(call.request):
        written = await _apply(call, namespace, combine, context)
    else:
        make = await registry.heavy.run(len(call.request.body), make_patch, call.request, kind, context)
        written = await registry.update(kind, namespace, name, make, context, combine=combine)
    return await answer_written(call, written, context)


def is_apply(request: Request) -> bool:
    """Return whether a PATCH is a server-side apply."""
    return media_type(request) in (APPLY_PATCH, APPLY_CBOR)


def prepare_apply(call: Call, kind: Kind, context: WriteContext) -> tuple[JsonObject, Make]:
    """Return the applied configuration of `kind` and what merges it; the write is an apply from here on."""
    if not call.request.param("fieldManager"):
        cause = Cause("FieldValueRequired", "fieldManager", "Required value: is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    context.operation = "Apply"
    force = call.request.param("force") in ("true", "1")
    return make_apply(call.request, kind, context, force=force, clock=call.registry.clock)


async def _apply(call: Call, namespace: str, combine: Combine | None, context: WriteContext) -> Written:
    heavy = call.registry.heavy
    _, make = await heavy.run(len(call.request.body), prepare_apply, call, call.kind, context)
    return await call.registry.update(
        call.kind, namespace, call.info.name, make, context, combine=combine, create_absent=not context.subresource
    )


async def answer_written(call: Call, written: Written, context: WriteContext) -> Response:
    """Return the answer for a written object, in the version and form that the request wants."""
    status = 201 if written.created else 200
    response = await call.reads.render_written(call.kind, written.body, call.request, status=status)
    if context.warnings:
        response.headers = [*response.headers, *warning_headers(context.warnings)]
    return response


def with_warning(answer: Answer, text: str) -> Answer:
    """Return an answer with one more Warning header; what goes on as another protocol has none."""
    if isinstance(answer, Response | Stream):
        answer.headers = [*answer.headers, *warning_headers([text])]
    return answer


def warning_headers(warnings: Sequence[str]) -> list[tuple[str, str]]:
    """Return one Warning header for each distinct warning (RFC 7234, code 299); cut short when they are too much.

    What is empty or has control characters is left out, as upstream does. Text goes out as UTF-8.
    """
    texts = [text for text in dict.fromkeys(warnings) if text and not _CONTROL.search(text)]
    if sum(map(len, texts)) > WARNINGS_LIMIT:
        kept, told = [], 0
        for text in texts:
            kept.append(text[:WARNING_LIMIT])
            told += len(kept[-1])
            if told >= WARNINGS_LIMIT:
                break
        texts = kept
    return [("Warning", f'299 - "{_ESCAPED.sub(_ESCAPE, text)}"'.encode().decode("latin-1")) for text in texts]


def delete_options(request: Request) -> DeleteOptions:
    """Return the options of a DELETE. Raises ApiError(400)."""
    body = parse_body(request, "DeleteOptions") if request.body else {}
    if not isinstance(body, dict):
        raise bad_request(f"the body of a delete must be DeleteOptions, not a JSON {go_type(body)}")
    if body.get("kind") not in (None, "DeleteOptions"):
        raise bad_request(f"the body of a delete must be DeleteOptions, not a {body['kind']}")
    return parse_delete_options(body, request.query)


def deleted_status(kind: Kind, obj: JsonObject) -> bytes:
    """Return the Status that answers a completed delete."""
    details = {"name": obj["metadata"]["name"]}
    if kind.group:
        details["group"] = kind.group
    details |= {"kind": kind.plural, "uid": obj["metadata"].get("uid", "")}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return orjson.dumps(status)


def require(call: Call, namespace: str) -> JsonObject:
    """Return the object that a subresource request names, in its storage version. Raises ApiError(404)."""
    current = call.registry.current(call.registry.storage_kind(call.kind), namespace, call.info.name)
    if current is None:
        raise not_found(call.kind.group, call.kind.plural, call.info.name)
    return current.obj
