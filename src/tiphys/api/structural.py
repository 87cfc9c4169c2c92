"""Schemas of custom resources: the structural OpenAPI v3 schema of a CustomResourceDefinition version.

`decode` prunes what the schema does not name (and keeps what x-kubernetes-preserve-unknown-fields says), coerces
nothing, and reports unknown fields; `default_from_schema` fills defaults; `validate` (valuevalidation.py) returns a
cause for every keyword that a value breaks. The node tree is the same as that of built-in kinds, so patches and
server-side apply need not know the difference.

DIFFERS: wrong types are causes of `validate` (422), as upstream has it for custom resources, except in metadata,
apiVersion and kind, which are decoded as everywhere else. CEL rules are not evaluated here.

Spec: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions": structural schemas,
pruning, defaulting, server-side apply markers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.api import schemanode as nodes
from tiphys.api.kind import DecodeResult, JsonObject
from tiphys.api.patch import copy_json
from tiphys.api.schema import metadata_node
from tiphys.api.valuevalidation import validate_value
from tiphys.base.errors import Cause

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"


class CustomNode(nodes.Node):
    """A place in a custom resource. Types are left to validation; unknown fields are pruned here."""

    __slots__ = ("additional", "fields", "item", "keep_unknown", "kind", "nullable")

    def __init__(self, schema: Mapping[str, Any], root: bool = False) -> None:
        super().__init__(schema)
        self.keep_unknown = bool(schema.get(_PRESERVE))
        self.nullable = bool(schema.get("nullable"))
        self.fields: dict[str, nodes.Node] = {
            name: CustomNode(child) for name, child in (schema.get("properties") or {}).items()
        }
        additional = schema.get("additionalProperties")
        self.additional: CustomNode | None = None
        if isinstance(additional, Mapping):
            self.additional = CustomNode(additional)
        elif additional is True:
            self.additional = CustomNode({_PRESERVE: True})
        items = schema.get("items")
        self.item: CustomNode | None = CustomNode(items) if isinstance(items, Mapping) else None
        self.kind = self._kind(schema)
        if root or schema.get(_EMBEDDED):
            self.fields["apiVersion"] = nodes.StringNode()
            self.fields["kind"] = nodes.StringNode()
            self.fields["metadata"] = metadata_node()
            self.kind = "struct"
        if self.item is not None and not schema.get("x-kubernetes-list-type"):
            self.list_type = "atomic"

    def _kind(self, schema: Mapping[str, Any]) -> str:
        if self.item is not None or schema.get("type") == "array":
            return "list"
        if self.additional is not None:
            return "map"
        if self.fields or schema.get("type") == "object":
            return "struct"
        return "raw" if self.keep_unknown else "scalar"

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
        for key, element in value.items():
            node = self.fields.get(key) or self.additional
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
        """Fill the defaults of absent fields, and of nulls that may not be null, in place."""
        if type(value) is dict:
            for name, node in self.fields.items():
                if not isinstance(node, CustomNode):
                    continue
                if name in value and value[name] is None and not node.nullable and "default" in node.definition:
                    del value[name]
                if name not in value and "default" in node.definition:
                    value[name] = copy_json(node.definition["default"])
            for name, element in value.items():
                child = self.fields.get(name) or self.additional
                if isinstance(child, CustomNode):
                    child.default(element)
        elif type(value) is list and self.item is not None:
            for element in value:
                self.item.default(element)


_UNKNOWN = nodes.Node()


class StructuralSchema:
    """The schema of one version of a custom resource. See the module's docstring."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.definition = schema
        self.root: nodes.Node = CustomNode(schema, root=True)

    def decode(self, obj: JsonObject) -> DecodeResult:
        """Prune unknown fields and check the metadata's types, in place."""
        found = nodes.Findings(struct="")
        self.root.decode(obj, (), found)
        return DecodeResult(tuple(found.errors[:1]), tuple(found.unknown))

    def node(self, path: Sequence[str]) -> Mapping[str, Any] | None:
        found = nodes.walk(self.root, iter(path))
        return found.definition if found is not None else None

    def default_from_schema(self, obj: JsonObject) -> None:
        """Fill the defaults that the schema gives, in place."""
        assert isinstance(self.root, CustomNode)
        self.root.default(obj)

    def validate(self, obj: JsonObject) -> list[Cause]:
        """Return a cause for each value that breaks the schema, in upstream's words."""
        return validate_value(obj, self.definition, "", root=True)
