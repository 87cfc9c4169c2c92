"""The scale subresource: an autoscaling/v1 Scale made from a workload's own fields, and written back to them.

Which fields is the kind's `scale_paths`; custom resources have it from their definition. A write of a Scale is a write
of the workload, so generation, validation and conflicts are the workload's.

Spec: Kubernetes API reference, Scale v1 autoscaling; CustomResourceDefinition "Scale subresource".
"""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.patch import copy_json
from tiphys.api.scalefields import scale_entries, workload_entries
from tiphys.api.selectors import selector_of
from tiphys.apiserver.body import parse_body
from tiphys.apiserver.bodyadmission import SCALE, admit_body
from tiphys.apiserver.patching import make_patch
from tiphys.apiserver.registry import CONFLICT_TRIES, Make, WriteContext, Written
from tiphys.apiserver.resources import Call, is_apply, prepare_apply, warning_headers
from tiphys.base.errors import Cause, bad_request, conflict, invalid, method_not_allowed, not_found
from tiphys.wire.message import Answer, Response


def _get_path(obj: JsonObject, path: str) -> Any:
    value: Any = obj
    for part in path.strip(".").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _set_path(obj: JsonObject, path: str, value: Any) -> None:
    parts = path.strip(".").split(".")
    for part in parts[:-1]:
        obj = obj.setdefault(part, {})
    obj[parts[-1]] = value


def scale_of(kind: Kind, obj: JsonObject, resource_version: str) -> JsonObject:
    """Return the Scale of a workload."""
    assert kind.scale_paths is not None
    spec_path, status_path, selector_path = kind.scale_paths
    metadata = obj["metadata"]
    scale: JsonObject = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
            "resourceVersion": resource_version,
            "creationTimestamp": metadata.get("creationTimestamp"),
        },
        "spec": {},
        "status": {"replicas": _get_path(obj, status_path) or 0},
    }
    replicas = _get_path(obj, spec_path)
    if replicas:
        scale["spec"]["replicas"] = replicas
    selector = _get_path(obj, selector_path) if selector_path else None
    if isinstance(selector, str):
        scale["status"]["selector"] = selector
    elif isinstance(selector, dict):
        plain = "matchLabels" not in selector and "matchExpressions" not in selector
        scale["status"]["selector"] = str(selector_of({"matchLabels": selector} if plain else selector))
    return scale


async def handle_scale(call: Call) -> Answer:
    """Answer GET, PUT and PATCH of a scale subresource."""
    kind = call.registry.working_kind(call.kind)
    namespace = call.info.namespace if kind.namespaced else ""
    if call.info.verb == "get":
        current = await call.registry.newest(kind, namespace, call.info.name)
        if current is None:
            raise not_found(kind.group, kind.plural, call.info.name)
        scale = scale_of(kind, current.obj, str(current.revision))
        return call.reads.render_object(_scale_kind(call), scale, call.request)
    if call.info.verb not in ("update", "patch"):
        raise method_not_allowed()
    context = call.context("scale")
    written = await _write(call, kind, namespace, context)
    revision = orjson.loads(written.body)["metadata"].get("resourceVersion", "")
    return Response(200, orjson.dumps(scale_of(kind, written.obj, revision)), headers=warning_headers(context.warnings))


def _scale_kind(call: Call) -> Kind:
    kind = call.registry.kinds.by_kind("autoscaling", "v1", "Scale")
    assert kind is not None
    return kind


class _Moved(Exception):
    """The workload was written by others while webhooks or policies looked at the Scale."""


async def _write(call: Call, kind: Kind, namespace: str, context: WriteContext) -> Written:
    wanted_of = _wanted(call, _scale_kind(call), context)
    if not call.registry.admission.looks_at_bodies():
        make = _workload_maker(call, kind, context, wanted_of)
        return await call.registry.update(kind, namespace, call.info.name, make, context)
    for _ in range(CONFLICT_TRIES):
        current = await call.registry.newest(kind, namespace, call.info.name)
        if current is None:
            raise not_found(kind.group, kind.plural, call.info.name)
        revision = str(current.revision)
        current.obj["metadata"]["resourceVersion"] = revision
        old = _owned_scale(kind, current.obj)
        wanted: JsonObject = copy_json(wanted_of(copy_json(old)))
        _check(call, wanted)
        await admit_body(call, "UPDATE", wanted, context, SCALE, old=old)

        def admitted(scale: JsonObject, wanted: JsonObject = wanted, revision: str = revision) -> JsonObject:
            if scale["metadata"]["resourceVersion"] != revision:
                raise _Moved
            return wanted

        make = _workload_maker(call, kind, context, admitted)
        try:
            return await call.registry.update(kind, namespace, call.info.name, make, context)
        except _Moved:
            continue
    raise conflict(kind.group, kind.plural, call.info.name)


def _owned_scale(kind: Kind, obj: JsonObject) -> JsonObject:
    """Return the Scale of a workload with the owners of its fields."""
    assert kind.scale_paths is not None
    metadata = obj["metadata"]
    scale = scale_of(kind, obj, metadata["resourceVersion"])
    scale["metadata"]["managedFields"] = scale_entries(metadata.get("managedFields"), kind.scale_paths[0])
    return scale


def _workload_maker(call: Call, kind: Kind, context: WriteContext, wanted_of: Make) -> Make:
    """Return the function that writes the wanted Scale of a workload into it."""
    assert kind.scale_paths is not None
    replicas_path = kind.scale_paths[0]

    def make(obj: JsonObject) -> JsonObject:
        metadata = obj["metadata"]
        wanted = wanted_of(_owned_scale(kind, obj))
        _check(call, wanted)
        _set_path(obj, replicas_path, (wanted.get("spec") or {}).get("replicas", 0))
        revision = (wanted.get("metadata") or {}).get("resourceVersion")
        if context.operation == "Apply":
            owners = wanted["metadata"].get("managedFields")
            metadata["managedFields"] = workload_entries(
                metadata.get("managedFields"), owners, replicas_path, kind.api_version
            )
        elif revision:
            metadata["resourceVersion"] = revision
        else:
            metadata.pop("resourceVersion", None)
        return obj

    return make


def _wanted(call: Call, scale_kind: Kind, context: WriteContext) -> Make:
    """Return the function that makes the wanted Scale from the current one."""
    if call.info.verb == "update":
        sent = parse_body(call.request)
        if not isinstance(sent, dict):
            raise bad_request("the body must be a Scale")
        errors = scale_kind.schema.decode(sent).type_errors
        if errors:
            raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {errors[0]}')
        return lambda current: sent
    if is_apply(call.request):
        return prepare_apply(call, scale_kind, context)[1]
    return make_patch(call.request, scale_kind, context)


def _check(call: Call, wanted: JsonObject) -> None:
    """Raise ApiError for a Scale of another name or with replicas that cannot be."""
    name = (wanted.get("metadata") or {}).get("name", call.info.name)
    if name != call.info.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.info.name})")
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        detail = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = Cause("FieldValueInvalid", "spec.replicas", detail)
        raise invalid("autoscaling", "Scale", call.info.name, [cause])
