"""PATCH: which patch a content type means, and how it makes the wanted object from the current one.

Output is a `Make` function for the registry, which calls it again when another write came between.

Spec: Kubernetes API concepts, "HTTP PATCH verbs"; RFC 6902; RFC 7396.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from tiphys.api.apply import apply
from tiphys.api.causes import format_go, go_quote
from tiphys.api.kind import JsonObject, Kind
from tiphys.api.patch import apply_json_patch, apply_merge_patch, copy_json
from tiphys.api.schemanode import root_of
from tiphys.api.strategic import apply_strategic_patch
from tiphys.api.typedpatch import typed_problems
from tiphys.apiserver.body import (
    STRICT_PROBLEMS,
    check_kind,
    go_type,
    media_type,
    parse_applied,
    parse_cbor,
    parse_patch,
    repeated_patch_fields,
    yaml_errors,
)
from tiphys.apiserver.registry import Make, WriteContext
from tiphys.apiserver.yamlbody import repeated_keys
from tiphys.base.clock import Clock, format_time
from tiphys.base.errors import ApiError, Cause, bad_request, invalid, unsupported_media_type
from tiphys.wire.message import Request

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
APPLY_CBOR = "application/apply-patch+cbor"
_OPERATION_FIELDS = ("op", "path", "from", "value")
_RESET = {"": ("status",), "status": ("spec",)}
"""What a write at the object and at its status leaves as it was: nobody owns it by naming it there."""
_PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


def make_patch(request: Request, kind: Kind, context: WriteContext) -> Make:
    """Return the function that applies the request's patch. Raises ApiError(400, 415, 422) for a patch that is none."""
    patch_type = media_type(request)
    accepted = _PATCH_TYPES if not kind.custom else (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
    if patch_type not in accepted:
        raise unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        )
    if request.param("force"):
        cause = Cause("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    if patch_type == JSON_PATCH:
        operations = _parsed(request, list, "[]handlers.jsonPatchOp", context)
        return _checked(
            lambda obj: apply_json_patch(obj, operations), kind, context, _faults(request, operations, context)
        )
    patch = _parsed(request, dict, "map[string]interface {}", context)
    faults = _faults(request, patch, context)
    if patch_type == MERGE_PATCH:
        return _checked(lambda obj: apply_merge_patch(obj, patch), kind, context, faults)
    return _checked(lambda obj: apply_strategic_patch(obj, patch, kind.schema), kind, context, faults, patch)


def make_apply(
    request: Request, kind: Kind, context: WriteContext, *, force: bool, clock: Clock
) -> tuple[JsonObject, Make]:
    """Return the applied configuration and the function that merges it. Raises ApiError(400)."""
    is_text = media_type(request) != APPLY_CBOR
    applied = parse_applied(request.body) if is_text else parse_cbor(request.body, kind.kind)
    if not isinstance(applied, dict):
        raise bad_request("the applied configuration must be an object")
    version = applied.get("apiVersion") or ""
    if version != kind.api_version and isinstance(version, str):
        raise bad_request(
            f"Incorrect version specified in apply patch. Specified patch version: {version}, "
            f"expected: {kind.api_version}"
        )
    if not applied.get("kind"):
        raise _untyped(applied, kind, "", f"no corresponding type for {kind.group}/{kind.version}, Kind=")
    check_kind(applied, kind)
    if is_text:
        _check_repeated(request.body, context)
    _check_typed(applied, kind)
    if (applied.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")

    def make(current: JsonObject) -> JsonObject:
        merged: JsonObject = apply(
            current or None,
            applied,
            manager=context.field_manager,
            force=force,
            subresource=context.subresource,
            api_version=kind.api_version,
            now=format_time(clock.now_s()),
            schema=kind.schema,
            ignore=_RESET.get(context.subresource, ()) if kind.subresource("status") is not None else (),
        )
        return merged

    return applied, make


def _check_repeated(body: bytes, context: WriteContext) -> None:
    """Refuse, or warn of, keys that the text of an applied configuration has twice."""
    lines = repeated_keys(body) if context.field_validation != "Ignore" else []
    if not lines:
        return
    text = f"error converting YAML to JSON: {yaml_errors(lines)}"
    if context.field_validation == "Strict":
        raise bad_request(f"error strict decoding YAML: {text}")
    context.warnings.append(" ".join(text.split()))


def _check_typed(applied: JsonObject, kind: Kind) -> None:
    """Refuse an applied configuration with fields that the schema does not have, or items that are not told apart."""
    written = copy_json(applied)
    decoded = kind.schema.decode(applied)
    problems = typed_problems(written, root_of(kind.schema), decoded.unknown_fields)
    if problems:
        raise _untyped(written, kind, kind.kind, problems)
    if decoded.type_errors:
        detail = f"cannot be handled as a {kind.kind}: {decoded.type_errors[0]}"
        raise bad_request(f'{kind.kind} in version "{kind.version}" {detail}')


def _untyped(applied: JsonObject, kind: Kind, kind_name: str, why: str) -> ApiError:
    metadata = applied.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
    told = f"failed to create typed patch object ({name}; {kind.group}/{kind.version}, Kind={kind_name}): {why}"
    return ApiError(500, "", told)


def _parsed(request: Request, wanted: type, go_name: str, context: WriteContext) -> Any:
    """Return the value of a patch, which must be of a type. Raises ApiError(400)."""
    patch_type = media_type(request)
    before = "" if patch_type == STRATEGIC_PATCH else "error decoding patch: "
    if context.field_validation == "Ignore" and patch_type == JSON_PATCH:
        before, go_name = "", "jsonpatch.Patch"
    patch = parse_patch(request.body, before)
    if isinstance(patch, wanted):
        items: list[Any] = patch if isinstance(patch, list) else []
        strange = [item for item in items if item is not None and not isinstance(item, dict)]
        if not strange:
            return patch
        patch, go_name = strange[0], "jsonpatch.Operation" if not before else "handlers.jsonPatchOp"
    raise bad_request(f"{before}json: cannot unmarshal {go_type(patch)} into Go value of type {go_name}")


def _faults(request: Request, patch: Any, context: WriteContext) -> list[str]:
    """Return what is ignored in the text of a patch: fields that are there twice, fields that no operation has."""
    if context.field_validation == "Ignore":
        return []
    faults = repeated_patch_fields(request.body, patch)
    if isinstance(patch, list):
        unknown = [
            f'unknown field "[{index}].{name}"'
            for index, operation in enumerate(patch)
            if isinstance(operation, dict)
            for name in operation
            if name not in _OPERATION_FIELDS
        ]
        faults = [f"json patch {fault}" for fault in unknown + faults]
    return faults[:STRICT_PROBLEMS]


def _checked(
    make: Make, kind: Kind, context: WriteContext, faults: Sequence[str], strategic: JsonObject | None = None
) -> Make:
    """Decode what the patch made as strictly as a whole object, telling its faults as those of the patch.

    Upstream quotes a strategic patch as Go prints it, and for other patches the whole object that they made.
    """

    def patched(current: JsonObject) -> JsonObject:
        result = make(current)
        if not isinstance(result, dict):
            raise bad_request("the patched document is not an object")
        result.setdefault("apiVersion", kind.api_version)
        result.setdefault("kind", kind.kind)
        if (result["apiVersion"], result["kind"]) != (kind.api_version, kind.kind):
            raise bad_request(f"a patch may not change apiVersion and kind ({kind.api_version}, {kind.kind})")
        decoded = kind.schema.decode(result)
        if decoded.type_errors:
            detail = decoded.type_errors[0]
            if strategic is not None and "Go struct field" in detail:
                detail = f"unrecognized type: {detail.rpartition(' ')[2]}"
            raise invalid("", "", "", [_patch_cause(strategic, result, detail)])
        if context.field_validation != "Ignore" and (faults or decoded.unknown_fields):
            problems = [*faults, *(f'unknown field "{path}"' for path in decoded.unknown_fields[:STRICT_PROBLEMS])]
            if context.field_validation == "Strict":
                detail = f"strict decoding error: {', '.join(problems)}"
                raise invalid("", "", "", [_patch_cause(strategic, result, detail)])
            context.warnings.extend(problem for problem in problems if problem not in context.warnings)
        return result

    return patched


def _patch_cause(strategic: JsonObject | None, result: JsonObject, detail: str) -> Cause:
    quoted = orjson.dumps(result).decode() if strategic is None else format_go(strategic)
    return Cause("FieldValueInvalid", "patch", f"Invalid value: {go_quote(quoted)}: {detail}")
