"""JSON patches and merge patches. Pure: the inputs are not changed, and the result shares nothing with them.

Input is the object as a dict and the parsed body of the request; errors are ApiErrors in upstream's shape: 400 for a
patch that is malformed, 422 without further words for one that does not fit the object.

Spec: RFC 6902 (JSON Patch; negative list indices count from the end, as upstream's library allows), RFC 7396 (JSON
Merge Patch).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from tiphys.api.kind import JsonObject
from tiphys.api.nesting import is_too_deep
from tiphys.base.errors import ApiError, bad_request, too_large

MAX_OPERATIONS = 10_000
"""Operations of one JSON patch; more are refused."""
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""What all copy operations of one JSON patch may add: a few of them, each doubling a value, would fill any memory."""

_INDEX = re.compile(r"-?[0-9]{1,18}")
_MISSING = object()


def rejected() -> ApiError:
    """A well-formed patch that does not fit the object (a failed test, a path that is not there)."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})


class PatchTestFailed(ApiError):
    """A test operation of a JSON patch does not hold. Clients see no difference to other patches that do not fit."""


class _Unfit(Exception):
    """The patch does not fit the object."""


def copy_json(value: Any) -> Any:
    """Return a deep copy of JSON data."""
    return orjson.loads(orjson.dumps(value))


def apply_json_patch(obj: JsonObject, operations: Any) -> JsonObject:
    """Return the object after all operations of an RFC 6902 patch, or raise ApiError and change nothing."""
    if not isinstance(operations, list):
        raise bad_request(
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
            if isinstance(operations, dict)
            else "a JSON patch must be a list of operations"
        )
    if len(operations) > MAX_OPERATIONS:
        raise too_large(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    document: Any = copy_json(obj)
    room_bytes = MAX_COPIED_BYTES
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request("a JSON patch must be a list of operations, each an object with op and path")
        try:
            if operation.get("op") == "copy":
                copied = orjson.dumps(_get(document, _pointer(operation.get("from"))))
                room_bytes -= len(copied)
                if room_bytes < 0:
                    raise _Unfit
                document = _add(document, _pointer(operation.get("path")), orjson.loads(copied))
            else:
                document = _operate(document, operation)
        except (_Unfit, orjson.JSONEncodeError, RecursionError):  # the last two: too deep, by moves
            raise rejected() from None
    if not isinstance(document, dict) or is_too_deep(document):
        raise rejected()
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation.get("path"))
    match operation.get("op"):
        case "add":
            return _add(document, path, copy_json(_value(operation)))
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            return _replace(document, path, copy_json(_value(operation)))
        case "move":
            source = _pointer(operation.get("from"))
            value = _get(document, source)
            if path[: len(source)] == source and len(path) > len(source):
                raise _Unfit
            return _add(_remove(document, source), path, value)
        case "test":
            _test(document, path, operation.get("value"))
            return document
        case _:
            raise _Unfit


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise _Unfit
    return operation["value"]


def _test(document: Any, path: list[str], expected: Any) -> None:
    try:
        value = _get(document, path)
    except _Unfit:
        value = None
    if not equal_json(value, expected):
        error = rejected()
        raise PatchTestFailed(error.code, error.reason, error.message, details=error.details)


def equal_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are the same; true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _pointer(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise _Unfit
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _index(items: list[Any], step: str, end: int) -> int:
    """Return the position that a step names, at most `end`."""
    if not _INDEX.fullmatch(step):
        raise _Unfit
    index = int(step)
    if index < 0:
        index += len(items)
    if not 0 <= index <= end:
        raise _Unfit
    return index


def _get(document: Any, path: list[str]) -> Any:
    value = document
    for step in path:
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
            if value is _MISSING:
                raise _Unfit
        elif isinstance(value, list):
            value = value[_index(value, step, len(value) - 1)]
        else:
            raise _Unfit
    return value


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    step = path[-1]
    if isinstance(parent, dict):
        parent[step] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if step == "-" else _index(parent, step, len(parent)), value)
    else:
        raise _Unfit
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        parent[_index(parent, path[-1], len(parent) - 1)] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise _Unfit
    _get(document, path)
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[_index(parent, path[-1], len(parent) - 1)]
    return document


def apply_merge_patch(obj: JsonObject, patch: Any) -> JsonObject:
    """Return the object after an RFC 7396 patch: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        raise bad_request("Invalid JSON Patch")
    result: JsonObject = _merge(copy_json(obj), patch)
    return result


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy_json(patch) if isinstance(patch, list) else patch
    if not isinstance(target, dict):
        target = {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = _merge(target.get(key), value)
    return target
