"""Validation of a value against the JSON-schema keywords that CustomResourceDefinitions may use.

Pure: value and schema in, causes out, each with upstream's text. Values are looked at where the schema names them;
pruning has happened before. CEL rules (x-kubernetes-validations) are not evaluated here.

Spec: Kubernetes documentation, "CustomResourceDefinition validation"; OpenAPI v3.0 schema object for the keywords.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from tiphys.api.causes import (
    duplicate,
    go_float,
    go_json,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
    type_invalid,
)
from tiphys.api.patch import equal_json
from tiphys.api.pattern import matches_pattern
from tiphys.base.errors import Cause

Schema = Mapping[str, Any]

_EMBEDDED = "x-kubernetes-embedded-resource"
_SKIPPED_AT_ROOT = ("apiVersion", "kind", "metadata")


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _fits(value: Any, wanted: str) -> bool:
    name = _type_name(value)
    return name == wanted or (wanted == "number" and name == "integer")


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def validate_value(value: Any, schema: Schema, path: str, root: bool = False) -> list[Cause]:
    """Return the causes of a value at a path. `root` True: an object whose metadata is validated elsewhere."""
    if value is None and (schema.get("nullable") or not schema.get("type")):
        return []
    mismatch = _validate_type(value, schema, path)
    if mismatch:
        return mismatch
    causes = _validate_enum(value, schema, path)
    match value:
        case bool() | None:
            pass
        case str():
            causes += _validate_string(value, schema, path)
        case int() | float():
            causes += _validate_number(value, schema, path)
        case list():
            causes += _validate_list(value, schema, path)
        case dict():
            causes += _validate_object(value, schema, path, root or bool(schema.get(_EMBEDDED)))
    return causes + _validate_combinations(value, schema, path)


def _validate_type(value: Any, schema: Schema, path: str) -> list[Cause]:
    name = _type_name(value)
    if schema.get("x-kubernetes-int-or-string"):
        if name in ("integer", "string"):
            return []
        detail = f'{path} in body must be of type integer,string: "{name}"'
        return [type_invalid(path, name, detail)]
    wanted = schema.get("type")
    if not wanted or _fits(value, wanted):
        return []
    return [type_invalid(path, name, f'{path or "<root>"} in body must be of type {wanted}: "{name}"')]


def _validate_enum(value: Any, schema: Schema, path: str) -> list[Cause]:
    allowed = schema.get("enum")
    if not allowed or any(equal_json(value, choice) for choice in allowed):
        return []
    return [not_supported(path, value, [c if isinstance(c, str) else go_json(c) for c in allowed])]


def _validate_string(value: str, schema: Schema, path: str) -> list[Cause]:
    causes = []
    maximum, minimum = schema.get("maxLength"), schema.get("minLength")
    if maximum is not None and len(value) > maximum:
        causes.append(too_long(path, maximum))
    if minimum is not None and len(value) < minimum:
        causes.append(invalid_value(path, value, f"{path} in body should be at least {minimum} chars long"))
    pattern = schema.get("pattern")
    if pattern and not matches_pattern(pattern, value):
        causes.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    check = _FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        wanted = schema["format"]
        causes.append(invalid_value(path, value, f'{path} in body must be of type {wanted}: "{value}"'))
    return causes


def _number(value: float) -> str:
    return go_float(value) if isinstance(value, float) else str(value)


def _validate_number(value: float, schema: Schema, path: str) -> list[Cause]:
    causes = []
    maximum, minimum = schema.get("maximum"), schema.get("minimum")
    if maximum is not None:
        if schema.get("exclusiveMaximum") and value >= maximum:
            causes.append(invalid_value(path, value, f"{path} in body should be less than {_number(maximum)}"))
        elif not schema.get("exclusiveMaximum") and value > maximum:
            detail = f"{path} in body should be less than or equal to {_number(maximum)}"
            causes.append(invalid_value(path, value, detail))
    if minimum is not None:
        if schema.get("exclusiveMinimum") and value <= minimum:
            causes.append(invalid_value(path, value, f"{path} in body should be greater than {_number(minimum)}"))
        elif not schema.get("exclusiveMinimum") and value < minimum:
            detail = f"{path} in body should be greater than or equal to {_number(minimum)}"
            causes.append(invalid_value(path, value, detail))
    factor = schema.get("multipleOf")
    if factor and Decimal(str(value)) % Decimal(str(factor)) != 0:
        causes.append(invalid_value(path, value, f"{path} in body should be a multiple of {_number(factor)}"))
    limits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if limits is not None and not -(2**limits) <= value < 2**limits:
        detail = f"{path} in body must be of type {schema['format']}: {_number(value)}"
        causes.append(invalid_value(path, value, detail))
    return causes


def _validate_list(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    causes = []
    maximum, minimum = schema.get("maxItems"), schema.get("minItems")
    if maximum is not None and len(value) > maximum:
        causes.append(too_many(path, len(value), maximum))
    if minimum is not None and len(value) < minimum:
        detail = f"{path} in body should have at least {minimum} items"
        causes.append(invalid_value(path, len(value), detail))
    items = schema.get("items")
    if isinstance(items, Mapping):
        for index, element in enumerate(value):
            causes += validate_value(element, items, f"{path}[{index}]")
    if schema.get("uniqueItems") and _repeats(value):
        causes.append(invalid_value(path, value, f"{path} in body shouldn't contain duplicates"))
    return causes + _validate_list_type(value, schema, path)


def _repeats(value: list[Any]) -> list[int]:
    """Return the positions of items that equal an earlier one."""
    return [i for i, item in enumerate(value) if any(equal_json(item, value[j]) for j in range(i))]


def _validate_list_type(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    """Sets hold each item once, maps each key once."""
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "set":
        return [duplicate(f"{path}[{index}]", value[index]) for index in _repeats(value)]
    if list_type != "map":
        return []
    names = schema.get("x-kubernetes-list-map-keys") or []
    keys = [{name: item[name] for name in names if name in item} for item in value if isinstance(item, dict)]
    return [duplicate(f"{path}[{index}]", keys[index]) for index in _repeats(keys)]


def _validate_object(value: dict[str, Any], schema: Schema, path: str, identified: bool) -> list[Cause]:
    causes = []
    maximum, minimum = schema.get("maxProperties"), schema.get("minProperties")
    if maximum is not None and len(value) > maximum:
        causes.append(too_many(path, len(value), maximum))
    if minimum is not None and len(value) < minimum:
        detail = f"{path} in body should have at least {minimum} properties"
        causes.append(invalid_value(path, len(value), detail))
    causes += [required(_child(path, name)) for name in schema.get("required") or () if name not in value]
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    for name, element in value.items():
        if identified and name in _SKIPPED_AT_ROOT:
            continue
        if name in properties:
            causes += validate_value(element, properties[name], _child(path, name))
        elif isinstance(additional, Mapping):
            causes += validate_value(element, additional, _child(path, name))
    return causes


def _validate_combinations(value: Any, schema: Schema, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for part in schema.get("allOf") or ():
        causes += validate_value(value, part, path)
    any_of = schema.get("anyOf")
    if any_of and not any(not validate_value(value, part, path) for part in any_of):
        best = min((validate_value(value, part, path) for part in any_of), key=len)
        causes.append(_combination(path, value, "must validate at least one schema (anyOf)"))
        causes += best
    one_of = schema.get("oneOf")
    if one_of:
        fitting = sum(1 for part in one_of if not validate_value(value, part, path))
        if fitting != 1:
            found = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            causes.append(_combination(path, value, f"must validate one and only one schema (oneOf). {found}"))
    negated = schema.get("not")
    if negated is not None and not validate_value(value, negated, path):
        causes.append(_combination(path, value, "must not validate the schema (not)"))
    return causes


def _combination(path: str, value: Any, rule: str) -> Cause:
    shown = "" if isinstance(value, list | dict) else value
    return invalid_value(path or "<nil>", shown, f'"{path}" {rule}')


def _is_date(text: str) -> bool:
    from datetime import date

    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == 10


def _is_date_time(text: str) -> bool:
    from tiphys.api.timestamps import canonical_time

    try:
        canonical_time(text.upper())
    except ValueError:
        return False
    return True


def _is_ip(version: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        import ipaddress

        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check


def _is_cidr(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _is_uri(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return bool(urlsplit(text).scheme) or text.startswith("/")
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    import binascii

    try:
        binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE | re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "datetime": _is_date_time,
    "ipv4": _is_ip(4),
    "ipv6": _is_ip(6),
    "cidr": _is_cidr,
    "uri": _is_uri,
    "byte": _is_base64,
    "email": _matches(r"[^@\s]+@[^@\s]+"),
    "hostname": _matches(r"([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.?"),
    "mac": _matches(r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}"),
    "uuid": _matches(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    "uuid3": _matches(r"[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    "uuid4": _matches(r"[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    "uuid5": _matches(r"[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    "hexcolor": _matches(r"#?([0-9a-f]{3}|[0-9a-f]{6})"),
    "k8s-short-name": lambda text: len(text) <= 63 and _matches(_LABEL)(text),
    "k8s-long-name": lambda text: len(text) <= 253 and _matches(rf"{_LABEL}(\.{_LABEL})*")(text),
}
"""Formats that are checked; others are annotations."""
