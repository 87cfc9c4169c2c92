"""JSON patches and merge patches. Pure: the inputs are not changed, and the result shares nothing with them.

Input is the object as a dict and the parsed body of the request; errors are ApiErrors in upstream's shape: 400 for a
patch that is malformed, 422 without further words for one that does not fit the object. Of a JSON patch, `fault` tells
why, in the words of the library that upstream uses: admission repeats them.

That library is laxer than the RFC, and clients count on it: what is not there can be replaced and is null for a test
and a copy, a missing value is null, a path may begin with anything before its first slash, and a negative index counts
from behind the end.

Spec: RFC 6902 (JSON Patch), RFC 7396 (JSON Merge Patch).
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

_INDEX = re.compile(r"[+-]?[0-9]{1,18}")
_REJECTED = "the server rejected our request due to an error in our request"
_MISSING = "missing value"


def rejected() -> ApiError:
    """A well-formed patch that does not fit the object (a failed test, a path that is not there)."""
    return ApiError(422, "Invalid", _REJECTED, details={})


class PatchUnfit(ApiError):
    """A well-formed JSON patch that does not fit the object. Clients are not told why; `fault` tells it."""

    def __init__(self, fault: str) -> None:
        super().__init__(422, "Invalid", _REJECTED, details={})
        self.fault = fault


class PatchTestFailed(PatchUnfit):
    """A test operation of a JSON patch finds another value."""


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
    copied_bytes = 0
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request("a JSON patch must be a list of operations, each an object with op and path")
        try:
            if operation.get("op") == "copy":
                copied_bytes += _copy(document, operation, copied_bytes)
            else:
                document = _operate(document, operation)
        except (orjson.JSONEncodeError, RecursionError):  # too deep, by moves
            raise PatchUnfit("the patched object is nested too deeply") from None
    if not isinstance(document, dict) or is_too_deep(document):
        raise PatchUnfit("the patched object is nested too deeply or is a list")
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    name = operation.get("op", "unknown")
    if name not in ("add", "remove", "replace", "move", "test"):
        raise PatchUnfit(f"Unexpected kind: {name}")
    if name == "move":
        _move(document, operation)
        return document
    path = _path(operation)
    value = operation.get("value")
    if name == "test":
        _test(document, path, value)
    elif name == "replace":
        return _replace(document, path, copy_json(value))
    else:
        parent, key = _parent(document, path, f'{name} operation does not apply: doc is missing path: "{path}"')
        context = f"error in {name} for path: '{path}'"
        if name == "add":
            _add(parent, key, copy_json(value), context)
        else:
            _remove(parent, key, context)
    return document


def _move(document: Any, operation: dict[str, Any]) -> None:
    source, path = _path(operation, "from"), _path(operation)
    parent, key = _parent(document, source, f"move operation does not apply: doc is missing from path: {source}")
    value = _get(parent, key, f"error in move for path: '{key}'")
    _remove(parent, key, f"error in move for path: '{key}'")
    parent, key = _parent(document, path, f"move operation does not apply: doc is missing destination path: {path}")
    _add(parent, key, value, f"error in move for path: '{path}'")


def _copy(document: Any, operation: dict[str, Any], copied_bytes: int) -> int:
    """Copy a value; return its size."""
    source, path = _path(operation, "from"), _path(operation)
    parent, key = _parent(document, source, f"copy operation does not apply: doc is missing from path: {source}")
    value = orjson.dumps(_get(parent, key, f"error in copy for from: '{source}'"))
    parent, key = _parent(document, path, f"copy operation does not apply: doc is missing destination path: {path}")
    copied_bytes += len(value)
    if copied_bytes > MAX_COPIED_BYTES:
        raise PatchUnfit(
            f"Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the "
            f"limit {MAX_COPIED_BYTES}"
        )
    _add(parent, key, orjson.loads(value), "error while adding value during copy")
    return len(value)


def _test(document: Any, path: str, expected: Any) -> None:
    value = document
    if path:
        parent, key = _parent(document, path, f"test operation does not apply: is missing path: {path}")
        value = _get(parent, key, f"error in test for path: '{path}'")
    if not equal_json(value, expected):
        raise PatchTestFailed(f"testing value {path} failed: test failed")


def _replace(document: Any, path: str, value: Any) -> Any:
    if not path:
        if not isinstance(value, (dict, list)):
            raise PatchUnfit("replace operation value must be object or array")
        return value
    parent, key = _parent(document, path, f"replace operation does not apply: doc is missing path: {path}")
    if isinstance(parent, dict):
        parent[key] = value
        return document
    try:
        parent[_index(key, len(parent), len(parent) - 1, "")] = value
    except PatchUnfit:
        raise PatchUnfit(f"replace operation does not apply: doc is missing key: {path}: {_MISSING}") from None
    return document


def _path(operation: dict[str, Any], field: str = "path") -> str:
    path = operation.get(field)
    if not isinstance(path, str):
        name = operation["op"]
        told = f"operation{',' if field == 'from' else ''} missing {field} field: {_MISSING}"
        if field == "path" and name in ("add", "remove", "copy"):
            told = _MISSING
        raise PatchUnfit(f"{name} operation failed to decode {field}: {told}")
    return path


def _parent(document: Any, path: str, context: str) -> tuple[Any, str]:
    """Return the object or list that holds the last step of a path, and that step."""
    _, *steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]
    value = document if steps else None
    try:
        for step in steps[:-1]:
            value = _get(value, step, context)
            if not isinstance(value, (dict, list)):
                break
    except PatchUnfit:
        value = None
    if not isinstance(value, (dict, list)):
        raise PatchUnfit(f"{context}: {_MISSING}")
    return value, steps[-1]


def _index(step: str, size: int, end: int, context: str) -> int:
    """Return the position that a step names, at most `end`; a negative one counts from `size`."""
    if not _INDEX.fullmatch(step):
        raise PatchUnfit(f'{context}: strconv.Atoi: parsing "{step}": invalid syntax')
    index = int(step) + (size if int(step) < 0 else 0)
    if not 0 <= index <= end:
        raise PatchUnfit(f"{context}: Unable to access invalid index: {int(step)}: invalid index referenced")
    return index


def _get(parent: Any, key: str, context: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(key)
    return parent[_index(key, len(parent), len(parent) - 1, context)]


def _add(parent: Any, key: str, value: Any, context: str) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    elif _INDEX.fullmatch(key):
        parent.insert(_index(key, len(parent) + 1, len(parent), context), value)
    else:
        _index(key, 0, 0, f"{context}: value was not a proper array index: '{key}'")


def _remove(parent: Any, key: str, context: str) -> None:
    if isinstance(parent, list):
        del parent[_index(key, len(parent), len(parent) - 1, context)]
    elif parent.pop(key, parent) is parent:
        raise PatchUnfit(f"{context}: Unable to remove nonexistent key: {key}: {_MISSING}")


def equal_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are the same; true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


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
