"""Schemas of custom resources: the structural OpenAPI v3 schema of a CustomResourceDefinition version.

`decode` prunes what the schema does not name (and keeps what x-kubernetes-preserve-unknown-fields says), coerces
nothing, and reports unknown fields; `default_from_schema` drops nulls that may not be and fills defaults; `validate`
returns a cause for every keyword that a value breaks (valuevalidation.py), for embedded resources that are none, and,
when nothing else is in the way, for every rule that does not hold (celrules.py). The node tree is the same as that of
built-in kinds, so patches and server-side apply need not know the difference.

Wrong types are causes of `validate` (422), as upstream has it for custom resources, except in metadata, apiVersion and
kind, which are decoded as everywhere else.

Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions": structural schemas,
pruning, defaulting, server-side apply markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from tiphys.api import schemanode as nodes
from tiphys.api.causes import invalid_value, required
from tiphys.api.correlation import Correlated
from tiphys.api.kind import DecodeResult, JsonObject, Kind, Strategy
from tiphys.api.metadata import validate_object_meta
from tiphys.api.names import validate_dns_1035_label
from tiphys.api.patch import copy_json
from tiphys.api.schema import metadata_node
from tiphys.api.valuevalidation import validate_list_types, validate_value
from tiphys.base.errors import Cause

if TYPE_CHECKING:
    from tiphys.api.celrules import RuleTree

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_RULES = b'"x-kubernetes-validations"'
_RATCHETING_FROM = 30
"""Kubernetes minor from which an update may leave what was wrong before."""
_BLOCKING = frozenset(
    {"FieldValueNotFound", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
"""Causes of values in which rules could not be trusted."""
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


class CustomNode(nodes.Node):
    """A place in a custom resource. Types are left to validation; unknown fields are pruned here.

    What stands below is made when it is first looked at: schemas are large, and objects use little of them.
    """

    __slots__ = (
        "_additional",
        "_defaults",
        "_fields",
        "_item",
        "_root",
        "default_value",
        "keep_unknown",
        "kind",
        "nullable",
    )

    def __init__(self, schema: Mapping[str, Any], root: bool = False) -> None:
        super().__init__(schema)
        self.keep_unknown = bool(schema.get(_PRESERVE))
        self.nullable = bool(schema.get("nullable"))
        self.default_value = schema.get("default")
        self._root = root or bool(schema.get(_EMBEDDED))
        self._fields: dict[str, nodes.Node] | None = None
        self._defaults: list[tuple[str, CustomNode]] | None = None
        self._additional: CustomNode | None = None
        self._item: CustomNode | None = None
        self.kind = self._kind(schema)
        if self.kind == "list" and not schema.get("x-kubernetes-list-type"):
            self.list_type = "atomic"

    def _kind(self, schema: Mapping[str, Any]) -> str:
        if self._root:
            return "struct"
        if isinstance(schema.get("items"), Mapping) or schema.get("type") == "array":
            return "list"
        if schema.get("additionalProperties") not in (None, False):
            return "map"
        if schema.get("properties") or schema.get("type") == "object":
            return "struct"
        return "raw" if self.keep_unknown else "scalar"

    @property
    def fields(self) -> dict[str, nodes.Node]:
        """The nodes of the fields that the schema names."""
        if self._fields is None:
            fields: dict[str, nodes.Node] = {
                name: CustomNode(child) for name, child in (self.definition.get("properties") or {}).items()
            }
            if self._root:
                fields["apiVersion"] = nodes.StringNode()
                fields["kind"] = nodes.StringNode()
                fields["metadata"] = metadata_node()
            self._fields = fields
        return self._fields

    @property
    def defaults(self) -> list[tuple[str, CustomNode]]:
        """The fields that have a default."""
        if self._defaults is None:
            self._defaults = [
                (name, node)
                for name, node in self.fields.items()
                if isinstance(node, CustomNode) and node.default_value is not None
            ]
        return self._defaults

    @property
    def additional(self) -> CustomNode | None:
        """The node of the values of a map, None where the schema allows no names but its own."""
        told = self.definition.get("additionalProperties")
        if self._additional is None and (told is True or isinstance(told, Mapping)):
            self._additional = CustomNode(told if isinstance(told, Mapping) else {_PRESERVE: True})
        return self._additional

    @property
    def item(self) -> CustomNode | None:
        """The node of the items of a list."""
        items = self.definition.get("items")
        if self._item is None and isinstance(items, Mapping):
            self._item = CustomNode(items)
        return self._item

    @property
    def shape(self) -> str:  # type: ignore[override]
        return self.kind

    @property
    def go_type(self) -> str:  # type: ignore[override]
        return "map[string]interface {}" if self.kind == "struct" else "interface {}"

    def field(self, name: str) -> nodes.Node | None:
        found = self.fields.get(name)
        if found is None and self.additional is not None:
            return self.additional
        if found is None and self.keep_unknown:
            return _UNKNOWN
        return found

    def item_node(self) -> nodes.Node | None:
        return self.item

    def decode(self, value: Any, path: nodes.Path, found: nodes.Findings) -> Any:
        if type(value) is dict:
            self._decode_object(value, path, found)
        elif type(value) is list and self.item is not None:
            for index, element in enumerate(value):
                self.item.decode(element, (path, index), found)
        return value

    def _decode_object(self, value: dict[str, Any], path: nodes.Path, found: nodes.Findings) -> None:
        dropped: list[str] = []
        fields, additional = self.fields, self.additional
        for key, element in value.items():
            node = fields.get(key) or additional
            if node is None:
                if not self.keep_unknown:
                    found.unknown.append(nodes.path_text((path, key)))
                    dropped.append(key)
            elif element is None:
                if not isinstance(node, CustomNode):
                    dropped.append(key)
            elif type(element) is not node.exact:
                kept = node.decode(element, (path, key), found)
                if kept is not element:
                    value[key] = kept
        for key in dropped:
            del value[key]

    def default(self, value: Any) -> None:
        """Drop nulls that may not be, and fill the defaults of what is absent or such a null, in place."""
        if type(value) is dict:
            self._default_object(value)
        elif type(value) is list and self.item is not None:
            for index, element in enumerate(value):
                if element is None and not self.item.nullable:
                    value[index] = copy_json(self.item.default_value)
                self.item.default(value[index])

    def _default_object(self, value: dict[str, Any]) -> None:
        for name, node in self.defaults:
            if name not in value or (value[name] is None and not node.nullable):
                value[name] = copy_json(node.default_value)
        dropped: list[str] = []
        fields, additional = self.fields, self.additional
        for name, element in value.items():
            child = fields.get(name) or additional
            if not isinstance(child, CustomNode):
                continue
            if element is not None:
                child.default(element)
            elif not child.nullable and child.default_value is None:
                dropped.append(name)
            elif not child.nullable:
                value[name] = copy_json(child.default_value)
        for name in dropped:
            del value[name]


_UNKNOWN = nodes.Node()


class StructuralSchema:
    """The schema of one version of a custom resource. See the module's docstring."""

    def __init__(self, schema: Mapping[str, Any], minor: int = 37) -> None:
        self.definition = schema
        self.minor = minor
        self.root: nodes.Node = CustomNode(schema, root=True)
        self._has_rules = _RULES in orjson.dumps(schema)
        self._rules: RuleTree | None = None

    def decode(self, obj: JsonObject) -> DecodeResult:
        """Prune unknown fields and check the metadata's types, in place."""
        found = nodes.Findings(struct="")
        self.root.decode(obj, (), found)
        return DecodeResult(tuple(found.errors[:1]), tuple(found.unknown))

    def node(self, path: Sequence[str]) -> Mapping[str, Any] | None:
        found = nodes.walk(self.root, iter(path))
        return found.definition if found is not None else None

    def default_from_schema(self, obj: JsonObject) -> None:
        """Drop nulls that may not be and fill the defaults that the schema gives, in place."""
        assert isinstance(self.root, CustomNode)
        self.root.default(obj)

    def validate(self, obj: JsonObject, old: JsonObject | None = None) -> list[Cause]:
        """Return a cause for each value that breaks the schema, in upstream's words.

        `old` is the object before an update, None for a new one: what was wrong before may stay as it was.
        """
        before = None
        if old is not None and self.minor >= _RATCHETING_FROM:
            before = Correlated(obj, old, self.definition)
        causes = validate_value(obj, self.definition, "", before=before)
        causes += embedded_causes(obj, self.definition, "")
        repeated = validate_list_types(obj, self.definition, "")
        if repeated and (old is None or not validate_list_types(old, self.definition, "")):
            causes += repeated
        if not self._has_rules:
            return causes
        if any(cause.type in _BLOCKING for cause in causes):
            return [*causes, invalid_value("<nil>", None, _UNCHECKED)]
        return causes + self._rule_tree().validate(obj, old, before)

    def is_heavy(self) -> bool:
        """Tell whether `validate` may take long: its rules are not compiled yet, or may cost much."""
        return self._has_rules and (self._rules is None or self._rules.is_heavy)

    def _rule_tree(self) -> RuleTree:
        """Return the compiled rules; that takes milliseconds, so it waits for the first object."""
        if self._rules is None:
            from tiphys.api.celrules import RuleTree

            self._rules = RuleTree(self.definition, self.minor)
        return self._rules


def embedded_causes(value: Any, schema: Mapping[str, Any], path: str) -> list[Cause]:
    """Return the causes of embedded resources in a value that have no type, or bad metadata."""
    causes: list[Cause] = []
    if isinstance(value, dict):
        if schema.get(_EMBEDDED):
            causes += _resource_causes(value, path)
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, element in value.items():
            if not isinstance(element, dict | list):
                continue
            if name in properties:
                causes += embedded_causes(element, properties[name], f"{path}.{name}" if path else name)
            elif isinstance(additional, Mapping):
                causes += embedded_causes(element, additional, f"{path}[{name}]")
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, element in enumerate(value):
            causes += embedded_causes(element, schema["items"], f"{path}[{index}]")
    return causes


def _resource_causes(value: dict[str, Any], path: str) -> list[Cause]:
    causes: list[Cause] = []
    version, kind = value.get("apiVersion"), value.get("kind")
    if not version:
        causes.append(required(f"{path}.apiVersion"))
    elif not isinstance(version, str):
        causes.append(invalid_value(f"{path}.apiVersion", version, "must be a string"))
    elif version.count("/") > 1:
        causes.append(invalid_value(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    if not kind:
        causes.append(required(f"{path}.kind"))
    elif not isinstance(kind, str):
        causes.append(invalid_value(f"{path}.kind", kind, "must be a string"))
    else:
        complaints = ",".join(validate_dns_1035_label(kind.lower()))
        if complaints:
            text = f"may have mixed case, but should otherwise match: {complaints}"
            causes.append(invalid_value(f"{path}.kind", kind, text))
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        named = {"metadata": {**metadata, "name": metadata.get("name") or "fakename"}}
        found = validate_object_meta(named, _embedded_kind(), bool(metadata.get("namespace")))
        causes += [Cause(cause.type, f"{path}.{cause.field}", cause.message) for cause in found]
    return causes


@cache
def _embedded_kind() -> Kind:
    """Return a kind whose metadata rules are those of embedded resources."""
    schema, strategy = StructuralSchema({"type": "object"}), Strategy(name_rule="path-segment")
    return Kind(group="", version="v1", kind="", plural="", schema=schema, strategy=strategy)
