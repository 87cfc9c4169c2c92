"""Causes of an Invalid status, in the words that clients know.

Every validation (metadata, built-in kinds, custom resources) makes its causes here, so that the rendering of a bad
value is decided once: text as a quoted Go string, numbers and booleans bare, lists and objects as compact JSON. Input
is a field path such as `spec.containers[0].name`; the output goes into `errors.invalid`.

Spec: API conventions, "Status details"; the texts are behaviour that clients and tests compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from tiphys.base.errors import Cause
from tiphys.base.gotext import go_quote as go_quote


def go_json(value: Any) -> str:
    """Return compact JSON as Go's encoder writes it: <, > and & are escaped."""
    text = orjson.dumps(value).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def go_float(value: float) -> str:
    """Return a float as Go's %v prints it: whole numbers without a fraction."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def format_go(value: Any) -> str:
    """Return a value as Go's %v prints decoded JSON: `map[a:1 b:[x y]]`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return go_float(value)
        case dict():
            return f"map[{' '.join(f'{key}:{format_go(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(format_go(item) for item in value)}]"
        case _:
            return str(value)


def render(value: Any) -> str:
    """Return a bad value as it stands in a message."""
    match value:
        case None:
            return '"null"'
        case bool():
            return "true" if value else "false"
        case str():
            return go_quote(value)
        case int():
            return str(value)
        case float():
            return go_float(value)
        case _:
            return go_json(value)


def _with_detail(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def required(path: str, detail: str = "") -> Cause:
    """A field that must be there is absent or empty."""
    return Cause("FieldValueRequired", path, _with_detail("Required value", detail))


def invalid_value(path: str, value: Any, detail: str) -> Cause:
    """A value breaks a rule; the detail says which."""
    return Cause("FieldValueInvalid", path, _with_detail(f"Invalid value: {render(value)}", detail))


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> Cause:
    """A value is not one of an enumeration. `allowed` is told in the order given: pass it sorted."""
    names = ", ".join(go_quote(str(name)) for name in allowed)
    detail = f"supported values: {names}" if names else ""
    return Cause("FieldValueNotSupported", path, _with_detail(f"Unsupported value: {render(value)}", detail))


def duplicate(path: str, value: Any) -> Cause:
    """A value that must be unique appears again."""
    return Cause("FieldValueDuplicate", path, f"Duplicate value: {render(value)}")


def forbidden(path: str, detail: str) -> Cause:
    """A field may not be set, or not be changed, in this state."""
    return Cause("FieldValueForbidden", path, _with_detail("Forbidden", detail))


def not_found(path: str, value: Any) -> Cause:
    """A value refers to something that is not there."""
    return Cause("FieldValueNotFound", path, f"Not found: {render(value)}")


def too_long(path: str, max_bytes: int) -> Cause:
    """A text has more bytes than allowed; the value itself is not repeated."""
    unit = "byte" if max_bytes == 1 else "bytes"
    detail = f"may not be more than {max_bytes} {unit}" if max_bytes >= 0 else "value is too long"
    return Cause("FieldValueTooLong", path, f"Too long: {detail}")


def too_many(path: str, actual: int, maximum: int) -> Cause:
    """A list or map has more entries than allowed. A negative `actual` is not told."""
    items = "item" if maximum == 1 else "items"
    detail = f"must have at most {maximum} {items}" if maximum >= 0 else "has too many items"
    head = f"Too many: {actual}" if actual >= 0 else "Too many"
    return Cause("FieldValueTooMany", path, f"{head}: {detail}")


def type_invalid(path: str, value: Any, detail: str) -> Cause:
    """A value is of another type than its schema says (custom resources)."""
    return Cause("FieldValueTypeInvalid", path, _with_detail(f"Invalid value: {render(value)}", detail))


def immutable(path: str, value: Any) -> Cause:
    """A field was changed that may not change. `value` is the new one."""
    return invalid_value(path, value, "field is immutable")
