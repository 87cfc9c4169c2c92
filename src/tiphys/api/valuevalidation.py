"""Validation of a value against the JSON-schema keywords that CustomResourceDefinitions may use.

Pure: value and schema in, causes out, each with upstream's text. Values are looked at where the schema names them;
pruning has happened before. An update may leave what was wrong before as it is (`before`, correlation.py). Rules
(x-kubernetes-validations) are in celrules.py.

Spec: Kubernetes documentation, "CustomResourceDefinition validation"; OpenAPI v3.0 schema object for the keywords.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tiphys.api.causes import (
    duplicate,
    go_float,
    go_json,
    go_quote,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
    type_invalid,
)
from tiphys.api.correlation import Correlated
from tiphys.api.patch import equal_json
from tiphys.api.pattern import matches_pattern
from tiphys.api.valueformats import fits_format
from tiphys.base.errors import Cause

Schema = Mapping[str, Any]


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


def validate_value(value: Any, schema: Schema, path: str, before: Correlated | None = None) -> list[Cause]:
    """Return the causes of a value at a path.

    `before` is what the value was before an update: what was wrong and has not changed is no cause.
    """
    causes = _validate(value, schema, path, before)
    return [] if causes and before is not None and before.is_same() else causes


def _validate(value: Any, schema: Schema, path: str, before: Correlated | None) -> list[Cause]:
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
            causes += _validate_list(value, schema, path, before)
        case dict():
            causes += _validate_object(value, schema, path, before)
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
    wanted = schema.get("format") or ""
    if wanted and schema.get("type", "string") == "string" and not fits_format(wanted, value):
        causes.append(type_invalid(path, value, f"{path} in body must be of type {wanted}: {go_quote(value)}"))
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


def _validate_list(value: list[Any], schema: Schema, path: str, before: Correlated | None) -> list[Cause]:
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
            known = before.index(index) if before is not None else None
            causes += validate_value(element, items, f"{path}[{index}]", before=known)
    if schema.get("uniqueItems") and _repeats(value):
        causes.append(invalid_value(path, value, f"{path} in body shouldn't contain duplicates"))
    return causes


def _repeats(value: list[Any]) -> list[int]:
    """Return the positions of items that equal an earlier one."""
    return [i for i, item in enumerate(value) if any(equal_json(item, value[j]) for j in range(i))]


def validate_list_types(value: Any, schema: Schema, path: str) -> list[Cause]:
    """Return the causes of what is twice in the sets and keyed lists of a value."""
    causes: list[Cause] = []
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, element in value.items():
            if name in properties:
                causes += validate_list_types(element, properties[name], _child(path, name))
            elif isinstance(additional, Mapping):
                causes += validate_list_types(element, additional, f"{path}[{name}]")
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping):
            for index, element in enumerate(value):
                causes += validate_list_types(element, items, f"{path}[{index}]")
        causes += _list_type_causes(value, schema, path)
    return causes


def _list_type_causes(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "set":
        return [duplicate(f"{path}[{index}]", value[index]) for index in _repeats(value)]
    if list_type != "map":
        return []
    names = schema.get("x-kubernetes-list-map-keys") or []
    keys = [{name: item[name] for name in names if name in item} if isinstance(item, dict) else {} for item in value]
    return [duplicate(f"{path}[{index}]", keys[index]) for index in _repeats(keys)]


def _validate_object(value: dict[str, Any], schema: Schema, path: str, before: Correlated | None) -> list[Cause]:
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
        if name in properties:
            known = before.key(name) if before is not None else None
            causes += validate_value(element, properties[name], _child(path, name), before=known)
        elif isinstance(additional, Mapping):
            known = before.key(name) if before is not None else None
            causes += validate_value(element, additional, _child(path, name), before=known)
    return causes


def _validate_combinations(value: Any, schema: Schema, path: str) -> list[Cause]:
    """Of alternatives of which none fits, the faults of the nearest are told with it."""
    causes: list[Cause] = []
    any_of = schema.get("anyOf") or ()
    faults = [validate_value(value, part, path) for part in any_of]
    if faults and all(faults):
        causes.append(_combination(path, "must validate at least one schema (anyOf)"))
        causes += _nearest(faults)
    one_of = schema.get("oneOf") or ()
    faults = [validate_value(value, part, path) for part in one_of]
    fitting = sum(1 for fault in faults if not fault)
    if one_of and fitting != 1:
        found = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
        causes.append(_combination(path, f"must validate one and only one schema (oneOf). {found}"))
        causes += _nearest(faults)
    causes += _validate_all_of(value, schema.get("allOf") or (), path)
    negated = schema.get("not")
    if negated is not None and not validate_value(value, negated, path):
        causes.append(_combination(path, "must not validate the schema (not)"))
    return causes


def _nearest(faults: Sequence[list[Cause]]) -> list[Cause]:
    return min(faults, key=lambda fault: len(fault))


def _validate_all_of(value: Any, parts: Sequence[Schema], path: str) -> list[Cause]:
    faults = [validate_value(value, part, path) for part in parts]
    failed = sum(1 for fault in faults if fault)
    causes = [cause for fault in faults for cause in fault]
    if failed:
        none = ". None validated" if failed == len(faults) else ""
        causes.append(_combination(path, f"must validate all the schemas (allOf){none}"))
    return causes


def _combination(path: str, rule: str) -> Cause:
    """Upstream tells such a fault at no field; its text has the path."""
    return invalid_value("<nil>", "", f'"{path}" {rule}')
