"""What a CustomResourceDefinition's schema may say: the keywords, their combinations, list types, defaults and rules.

`schema_causes` is asked for every version of a definition that is written. It first asks whether the schema is
structural (structuralrules.py) and whether its defaults fit (crddefaults.py), then checks each place here, and compiles
the validation rules (celrules.py) of those places that are right.

Invariant: a schema without causes can be compiled, pruned with, defaulted from and validated against.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions"; KEP-2876 for validation rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.schemapath import BadSchemaPath, resolve_schema_path
from tiphys.api.structuralrules import structural_causes
from tiphys.base.errors import Cause

Schema = Mapping[str, Any]

_LIST_TYPE, _LIST_KEYS = "x-kubernetes-list-type", "x-kubernetes-list-map-keys"
_MAP_TYPE, _RULES = "x-kubernetes-map-type", "x-kubernetes-validations"
_EMBEDDED, _PRESERVE = "x-kubernetes-embedded-resource", "x-kubernetes-preserve-unknown-fields"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_NOT_SUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_META = ("metadata", "kind", "apiVersion")
_AT_ROOT = (
    *("Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum"),
    *("MaxLength", "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required"),
    *("Items", "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations"),
)
"""Keywords that the root may have beside a status subresource, by upstream's names."""
_NAMES_AT_ROOT = frozenset(
    {name[0].lower() + name[1:] for name in _AT_ROOT if name[:2] not in ("XP", "XV")} | {_PRESERVE, _RULES}
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a schema a check is: what the places above decide for it."""

    path: str
    root: bool = False
    inside_metadata: bool = False
    no_defaults: str | None = None
    """Why defaults are forbidden here, None where they are allowed."""
    uncorrelated: str = ""
    """The first place above whose values cannot be told from one another after an update; "" for none."""
    cardinality: int | None = 1
    """How often the value may be in one object; None: no bound."""
    rules: bool = True
    """False inside of allOf and the like, where rules cannot be."""


@dataclass(slots=True)
class Findings:
    """What is wrong with a schema so far, and what its rules cost."""

    causes: list[Cause] = field(default_factory=list)
    rule_causes: list[Cause] = field(default_factory=list)
    costs: list[tuple[int, str]] = field(default_factory=list)
    """(cost, path) of every rule and message expression."""


def schema_causes(
    schema: Schema, path: str, *, has_status: bool, minor: int = 37, unchanged: bool = False
) -> list[Cause]:
    """Return the causes of everything in the schema of one version that cannot be served.

    `unchanged` True: an update left the schema as it was; then the limit of a rule's cost does not bind it.
    """
    causes: list[Cause] = []
    if has_status:
        causes += _root_causes(schema, path)
    if schema.get("nullable"):
        causes.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    wrong = structural_causes(schema, path)
    if not wrong:
        from tiphys.api.crddefaults import default_causes

        wrong = default_causes(schema, path)
    found = Findings()
    check = _Check(found, minor, compiles=not wrong, unchanged=unchanged)
    check.visit(schema, Place(path, root=True))
    causes += wrong + found.causes + found.rule_causes
    if found.costs:
        from tiphys.api.celrules import total_cost_causes

        causes += total_cost_causes(found.costs, path)
    return causes


def _root_causes(schema: Schema, path: str) -> Iterator[Cause]:
    """The status is checked by its own part of the schema, so the root may say little else about the whole."""
    kind = schema.get("type")
    if kind and kind != "object":
        text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        yield invalid_value(f"{path}.type", kind, text)
    elif any(value and name not in _NAMES_AT_ROOT for name, value in schema.items()):
        listed = f"[{' '.join(_AT_ROOT)}]"
        text = f"only {listed} fields are allowed at the root of the schema if the status subresource is enabled"
        yield invalid_value(path, schema, text)


class _Check:
    """Visits every place of a schema."""

    def __init__(self, found: Findings, minor: int, *, compiles: bool, unchanged: bool) -> None:
        self._found = found
        self._minor = minor
        self._compiles = compiles
        self._unchanged = unchanged

    def visit(self, schema: Schema, place: Place) -> None:
        before = len(self._found.causes)
        causes = self._found.causes
        causes += _keyword_causes(schema, place)
        self._visit_children(schema, place)
        causes += _map_type_causes(schema, place.path)
        causes += _list_type_causes(schema, place.path)
        rules = schema.get(_RULES)
        if not rules:
            return
        causes += _rule_form_causes(schema, place.path)
        if len(causes) == before and self._compiles and place.rules:
            from tiphys.api.celrules import rule_causes

            told, costs = rule_causes(schema, place, self._minor, unchanged=self._unchanged)
            self._found.rule_causes += told
            self._found.costs += costs

    def _visit_children(self, schema: Schema, place: Place) -> None:
        path = place.path
        inner = replace(place, root=False, cardinality=_child_cardinality(schema, place.cardinality))
        additional = schema.get("additionalProperties")
        if isinstance(additional, Mapping):
            child = inner
            if place.inside_metadata:
                child = replace(inner, no_defaults=" inside additionalProperties applying to object metadata")
            self.visit(additional, replace(child, path=f"{path}.additionalProperties"))
        resource = place.root or bool(schema.get(_EMBEDDED))
        map_type = schema.get(_MAP_TYPE)
        uncorrelated = place.uncorrelated or ("" if map_type in (None, "granular", "atomic") else path)
        for name, property_schema in (schema.get("properties") or {}).items():
            child = replace(inner, path=f"{path}.properties[{name}]", uncorrelated=uncorrelated)
            if resource and name in _META:
                forbids = f" in top-level {name}" if place.root else child.no_defaults
                child = replace(child, inside_metadata=True, no_defaults=forbids)
            self.visit(property_schema, child)
        without = replace(inner, rules=False)
        for name in ("allOf", "oneOf", "anyOf"):
            for index, part in enumerate(schema.get(name) or ()):
                self.visit(part, replace(without, path=f"{path}.{name}[{index}]"))
        if isinstance(schema.get("not"), Mapping):
            self.visit(schema["not"], replace(without, path=f"{path}.not"))
        items = schema.get("items")
        if isinstance(items, Mapping):
            lost = place.uncorrelated or ("" if schema.get(_LIST_TYPE) == "map" else path)
            self.visit(items, replace(inner, path=f"{path}.items", uncorrelated=lost))


def _child_cardinality(schema: Schema, own: int | None) -> int | None:
    """Return how often what stands below may be there, if the schema bounds it."""
    most: int | None = 1
    if schema.get("type") == "object" and schema.get("additionalProperties") is not None:
        most = schema.get("maxProperties")
    elif schema.get("type") == "array":
        most = schema.get("maxItems")
    return None if own is None or most is None else own * max(0, most)


def _keyword_causes(schema: Schema, place: Place) -> Iterator[Cause]:
    path = place.path
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    if schema.get("default") is not None and place.no_defaults is not None:
        yield forbidden(f"{path}.default", f"must not be set{place.no_defaults}")
    for name in _NOT_SUPPORTED:
        if schema.get(name):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    if kind == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.inside_metadata and schema.get(_EMBEDDED):
        yield forbidden(f"{path}.{_EMBEDDED}", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", text)
    additional = schema.get("additionalProperties")
    if additional is not None and additional is not True and schema.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        yield forbidden(f"{path}.additionalProperties", text)
    if schema.get(_PRESERVE) is False:
        yield invalid_value(f"{path}.{_PRESERVE}", False, "must be true or undefined")


def _map_type_causes(schema: Schema, path: str) -> Iterator[Cause]:
    map_type = schema.get(_MAP_TYPE)
    if map_type is None:
        return
    kind = schema.get("type") or ""
    if kind != "object":
        text = "must be object if x-kubernetes-map-type is specified"
        yield invalid_value(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)
    if map_type not in ("atomic", "granular"):
        yield not_supported(f"{path}.{_MAP_TYPE}", map_type, ("atomic", "granular"))


def _list_type_causes(schema: Schema, path: str) -> Iterator[Cause]:
    list_type, keys = schema.get(_LIST_TYPE), schema.get(_LIST_KEYS) or ()
    kind, items = schema.get("type") or "", schema.get("items")
    if list_type is not None and kind != "array":
        text = "must be array if x-kubernetes-list-type is specified"
        yield invalid_value(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)
    elif list_type == "set" and isinstance(items, Mapping):
        yield from _set_causes(items, path)
    if list_type not in (None, "atomic", "set", "map"):
        yield not_supported(f"{path}.{_LIST_TYPE}", list_type, ("atomic", "set", "map"))
    if keys and list_type != "map":
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.{_LIST_TYPE}"
        yield required(where, text) if list_type is None else invalid_value(where, list_type, text)
    if list_type == "map":
        yield from _keyed_list_causes(items, list(keys), path)
    if list_type in ("set", "map") and isinstance(items, Mapping):
        yield from _item_causes(items, list_type, keys, path)


def _set_causes(items: Schema, path: str) -> Iterator[Cause]:
    text = "must be atomic as item of a list with x-kubernetes-list-type=set"
    if items.get("type") == "array" and items.get(_LIST_TYPE) not in (None, "atomic"):
        yield invalid_value(f"{path}.items.{_LIST_TYPE}", items[_LIST_TYPE], text)
    elif items.get("type") == "object" and items.get(_MAP_TYPE) != "atomic":
        yield invalid_value(f"{path}.items.{_MAP_TYPE}", items.get(_MAP_TYPE), text)


def _keyed_list_causes(items: Any, keys: list[str], path: str) -> Iterator[Cause]:
    if not keys:
        yield required(f"{path}.{_LIST_KEYS}", "must not be empty if x-kubernetes-list-type is map")
    if items is None:
        yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        return
    if not isinstance(items, Mapping):
        yield invalid_value(f"{path}.items", items, "must only have a single schema if x-kubernetes-list-type is map")
        return
    kind = items.get("type") or ""
    if kind != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid_value(f"{path}.items.type", kind, text)
        return
    properties = items.get("properties") or {}
    for position, key in enumerate(keys):
        if key not in properties:
            yield invalid_value(f"{path}.{_LIST_KEYS}", keys, "entries must all be names of item properties")
        elif properties[key].get("type") in ("array", "object"):
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid_value(f"{path}.items.properties[{key}].type", kind, text)
        if key in keys[:position]:
            yield invalid_value(f"{path}.{_LIST_KEYS}", keys, "must not contain duplicate entries")


def _item_causes(items: Schema, list_type: str, keys: Any, path: str) -> Iterator[Cause]:
    """Items of sets and keyed lists are there, and keys have values."""
    if items.get("nullable"):
        yield forbidden(f"{path}.items.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}")
    if list_type != "map":
        return
    properties, needed = items.get("properties") or {}, items.get("required") or ()
    for key in keys:
        if key not in properties:
            continue
        where = f"{path}.items.properties[{key}]"
        if key not in needed and properties[key].get("default") is None:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield required(f"{where}.default", text)
        if properties[key].get("nullable"):
            text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            yield forbidden(f"{where}.nullable", text)


def _rule_form_causes(schema: Schema, path: str) -> Iterator[Cause]:
    """Check the fields of rules without reading their expressions."""
    for index, rule in enumerate(schema[_RULES]):
        where = f"{path}.{_RULES}[{index}]"
        text, message = (rule.get("rule") or "").strip(), rule.get("message") or ""
        if not text:
            yield required(f"{where}.rule", "rule is not specified")
        elif message and not message.strip():
            yield invalid_value(f"{where}.message", message, "message must be non-empty if specified")
        elif _has_line_breaks(message.strip()):
            yield invalid_value(f"{where}.message", message, "message must not contain line breaks")
        elif _has_line_breaks(text) and not message.strip():
            yield required(f"{where}.message", "message must be specified if rule contains line breaks")
        expression = rule.get("messageExpression") or ""
        if expression and not expression.strip():
            yield required(f"{where}.messageExpression", "messageExpression must be non-empty if specified")
        if rule.get("reason") is not None and rule["reason"] not in _REASONS:
            yield not_supported(f"{where}.reason", rule["reason"], _REASONS)
        yield from _field_path_causes(rule.get("fieldPath") or "", schema, f"{where}.fieldPath")


def _field_path_causes(told: str, schema: Schema, path: str) -> Iterator[Cause]:
    if not told:
        return
    if not told.strip():
        yield invalid_value(path, told, "fieldPath must be non-empty if specified")
    if _has_line_breaks(told):
        yield invalid_value(path, told, "fieldPath must not contain line breaks")
    try:
        resolve_schema_path(told, schema)
    except BadSchemaPath:
        yield invalid_value(path, told, "fieldPath must be a valid path")


def _has_line_breaks(text: str) -> bool:
    return "\n" in text or "\r" in text
