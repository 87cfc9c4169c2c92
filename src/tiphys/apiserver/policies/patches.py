"""What mutations do to an object: merge an apply configuration, or apply a JSON patch. Pure; the arguments stay as they are.

The value of an expression comes in, the changed object goes out, decoded by the schema of its kind. A value that does
not fit raises `PatchFailed`, for failurePolicy to decide.

Spec: Kubernetes documentation, "Mutating Admission Policy" (ApplyConfiguration, JSONPatch); KEP-3962.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tiphys.api.apply import merge_configuration
from tiphys.api.causes import format_go, render
from tiphys.api.fieldset import item_step, path_string
from tiphys.api.kind import JsonObject, Kind
from tiphys.api.patch import PatchTestFailed, PatchUnfit, apply_json_patch
from tiphys.api.schemanode import Node, root_of
from tiphys.base.errors import ApiError, TiphysError, internal
from tiphys.cel.values import Optional, Struct


class PatchFailed(TiphysError):
    """A mutation cannot be applied. The text is what the client is told."""


def apply_configuration(kind: Kind, obj: JsonObject, value: Any) -> JsonObject:
    """Return the object with an `Object{...}` merged into it as server-side apply merges, without owners."""
    wrong = list(_wrong_names(value, "Object"))
    if wrong:
        raise PatchFailed("type mismatch: " + "\n".join(wrong))
    configuration = to_json(value)
    if not isinstance(configuration, dict):
        raise PatchFailed(f"unsupported return type from ApplyConfiguration expression: {type(value).__name__}")
    configuration = {**configuration, "apiVersion": kind.api_version, "kind": kind.kind}
    root = root_of(kind.schema)
    problems = list(_mistyped(configuration, root, ()))
    if problems:
        told = problems[0] if len(problems) == 1 else "\n  ".join(["errors:", *problems])
        raise PatchFailed(f"error applying patch: failed to convert patch object to typed object: {told}")
    atomics = list(_atomics(configuration, root, ""))
    if atomics:
        raise PatchFailed(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(atomics)
        )
    kind.schema.decode(configuration)
    return merge_configuration(obj, configuration, kind.schema)


_NUMERIC = "numeric (int or float)"
_JSON_TYPES: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "string": ("string", (str,)),
    "boolean": ("boolean", (bool,)),
    "integer": (_NUMERIC, (int, float)),
    "number": (_NUMERIC, (int, float)),
}
_GO_TYPES = {str: "string", bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def _mistyped(value: Any, node: Node, path: tuple[str, ...]) -> Iterator[str]:
    """Yield what of a configuration does not fit its schema, in the words of the library that merges upstream."""
    if value is None:
        return
    if node.shape in ("struct", "map"):
        yield from _mistyped_fields(value, node, path)
    elif node.shape == "list":
        item_node = node.item_node()
        if not isinstance(value, list):
            yield f"{path_string(path)}: expected list, got &{{{format_go(value)}}}"
        elif item_node is not None:
            for index, item in enumerate(value):
                yield from _mistyped(item, item_node, (*path, item_step(item, node, index)))
    elif node.shape == "scalar":
        yield from _mistyped_scalar(value, node, path)


def _mistyped_scalar(value: Any, node: Node, path: tuple[str, ...]) -> Iterator[str]:
    wanted, classes = _JSON_TYPES.get(node.definition.get("type", ""), ("", (object,)))
    if isinstance(value, classes) and (not isinstance(value, bool) or wanted in ("", "boolean")):
        return
    got = f"&value.valueUnstructured{{Value:{render(value)}}}"
    if wanted == _NUMERIC:
        got = _GO_TYPES.get(type(value), "interface {}")
    yield f"{path_string(path)}: expected {wanted}, got {got}"


def _mistyped_fields(value: Any, node: Node, path: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path_string(path)}: expected map, got &{{{format_go(value)}}}"
        return
    for name, field in value.items():
        child = node.field(name)
        below = (*path, f"f:{name}")
        if child is not None:
            yield from _mistyped(field, child, below)
        elif not getattr(node, "keep_unknown", False):
            yield f"{path_string(below)}: field not declared in schema"


def _wrong_names(value: Any, path: str) -> Iterator[str]:
    """Yield complaints about constructed objects that are not named by the path of the field that they stand in."""
    if isinstance(value, Struct):
        if value.cel_type.name != path:
            yield (
                f'unexpected type name "{value.cel_type.name}", expected "{path}", '
                "which matches field name path from root Object type"
            )
        for name, field in value.items():
            yield from _wrong_names(field, f"{path}.{name}")
    elif isinstance(value, dict):
        for field in value.values():
            yield from _wrong_names(field, path)
    elif isinstance(value, list):
        for item in value:
            yield from _wrong_names(item, path)


def _atomics(value: Any, node: Node | None, path: str) -> Iterator[str]:
    """Yield the paths of lists, maps and structs that would be replaced as a whole: what they hold would be lost."""
    if node is None:
        return
    if isinstance(value, dict):
        if node.atomic:
            yield path
        for name, field in value.items():
            yield from _atomics(field, node.field(name), f"{path}.{name}")
    elif isinstance(value, list):
        if node.list_type == "atomic":
            yield path
        for index, item in enumerate(value):
            yield from _atomics(item, node.item_node(), f"{path}[{index}]")


def json_patch(kind: Kind, obj: JsonObject, value: Any) -> JsonObject:
    """Return the object after the operations of a list of `JSONPatch{...}`; a test that fails changes nothing.

    Raises PatchFailed, and ApiError(500) for an object that cannot be decoded: no failurePolicy helps there."""
    if not isinstance(value, list):
        raise PatchFailed("type mismatch: JSONPatchType.expression should evaluate to array")
    operations = [_operation(each) for each in value]
    try:
        patched = apply_json_patch(obj, operations)
    except PatchTestFailed:
        return obj
    except PatchUnfit as error:
        raise PatchFailed(f"JSONPath: {error.fault}") from error
    except ApiError as error:
        raise PatchFailed(f"JSONPath: {error}") from error
    decoded = kind.schema.decode(patched)
    if not kind.custom and (decoded.type_errors or decoded.unknown_fields):
        unknown = [f'unknown field "{path}"' for path in decoded.unknown_fields]
        raise internal(
            decoded.type_errors[0] if decoded.type_errors else f"strict decoding error: {', '.join(unknown)}"
        )
    return patched


def _operation(value: Any) -> JsonObject:
    """Return one operation of a patch. An object that it constructs may be named by any path, but throughout."""
    if not isinstance(value, Struct):
        raise PatchFailed("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
    operand = value.get("value")
    wrong = list(_wrong_names(operand, operand.cel_type.name)) if isinstance(operand, Struct) else []
    if wrong:
        raise PatchFailed("type mismatch: " + "\n".join(wrong))
    return {name: to_json(field) for name, field in value.items()}


def to_json(value: Any) -> Any:
    """Return a value of an expression as JSON data of its own."""
    if isinstance(value, dict):
        return {str(key): to_json(field) for key, field in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Optional) and value.present:
        return to_json(value.value)
    raise PatchFailed(f"JSONPath valueExpression evaluated to a type that could not marshal to JSON: {type(value)}")
