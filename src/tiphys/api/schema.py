"""Schemas of built-in kinds: OpenAPI definitions compiled to nodes (schemanode.py), and the decoding of objects.

Every write passes `ObjectSchema.decode`, so it has two ways to the same result. The quick one hands the object to
msgspec, which checks types and unknown fields in C; an object that passes needs no change. Everything else (a null, an
unknown field, a wrong type, a quantity that is not canonical) takes the careful way over the nodes, which repairs the
object and words the errors. The quick way is built only for kinds that are written often.

Spec: API conventions, "Unset and null values"; field validation in the API concepts page; error texts are those of
the JSON decoder that upstream uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tiphys.api import schemanode as nodes
from tiphys.api.definitions import (
    INT_OR_STRING,
    MICRO_TIME,
    OBJECT_META,
    QUANTITY,
    TIME,
    Definitions,
    load_definitions,
    referenced,
    supported_versions,
)
from tiphys.api.gotypes import package_of, string_type
from tiphys.api.kind import DecodeResult, JsonObject, Schema
from tiphys.api.quickcheck import QuickCheck

__all__ = ["DecodeResult", "ObjectSchema", "compile_schema", "compile_structural_schema", "find_duplicate_fields"]

_RAW = (
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
)
_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_SCHEMA_OR_ELSE = (f"{_SCHEMA}OrArray", f"{_SCHEMA}OrBool")
_QUICK_AFTER = 12
"""Decodes of one kind before its quick check is built; that costs milliseconds, which a start-up must not pay."""

_FINE = DecodeResult()


class Compiler:
    """Makes nodes of one version's definitions; struct types are shared between kinds."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._structs: dict[str, nodes.StructType] = {}

    def named(self, name: str, usage: Mapping[str, Any] | None = None) -> nodes.Node:
        """Return the node of a definition, with the extensions of the property that refers to it."""
        if name == QUANTITY:
            return nodes.quantity_node()
        if name == INT_OR_STRING:
            return nodes.IntOrStringNode()
        if name == TIME:
            return nodes.time_node()
        if name == MICRO_TIME:
            return nodes.micro_time_node()
        definition = self.definitions[name]
        if name in _SCHEMA_OR_ELSE:
            return nodes.ObjectOrElseNode(definition, self.named(_SCHEMA))
        if name in _RAW or definition.get("type", "object") != "object":
            node = nodes.Node(definition)
            node.atomic = True
            return node
        return nodes.StructNode(self._struct(name, definition), usage)

    def _struct(self, name: str, definition: Mapping[str, Any]) -> nodes.StructType:
        struct = self._structs.get(name)
        if struct is None:
            go_name = name.rpartition(".")[2]
            struct = nodes.StructType(
                package_of(name), go_name, definition, lambda: self._fields(go_name, definition.get("properties", {}))
            )
            self._structs[name] = struct
        return struct

    def _fields(self, struct: str, properties: Mapping[str, Mapping[str, Any]]) -> dict[str, nodes.Node]:
        return {name: self.node(schema, struct, name) for name, schema in properties.items()}

    def node(self, schema: Mapping[str, Any], struct: str, field: str) -> nodes.Node:
        """Return the node of a property."""
        reference = referenced(schema)
        if reference is not None:
            return self.named(reference, schema)
        match schema.get("type"):
            case "string":
                if schema.get("format") == "byte":
                    return nodes.BytesNode(schema)
                return nodes.StringNode(schema, string_type(struct, field))
            case "integer":
                return nodes.IntegerNode(schema)
            case "number":
                return nodes.FloatNode(schema)
            case "boolean":
                return nodes.BoolNode(schema)
            case "array":
                return nodes.ListNode(schema, self.node(schema["items"], struct, field))
            case "object" if "additionalProperties" in schema:
                return nodes.MapNode(schema, self.node(schema["additionalProperties"], struct, field))
            case _:
                return nodes.Node(schema)


_compilers: dict[int, Compiler] = {}


def _compiler(definitions: Definitions) -> Compiler:
    compiler = _compilers.get(id(definitions))
    if compiler is None or compiler.definitions is not definitions:
        compiler = _compilers[id(definitions)] = Compiler(definitions)
    return compiler


def metadata_node() -> nodes.Node:
    """Return the node of metav1.ObjectMeta, which custom resources share with built-in kinds.

    It comes from the definitions that are loaded already, so that a cluster of an older version loads no others.
    """
    loaded = next(iter(_compilers.values()), None)
    compiler = loaded or _compiler(load_definitions(supported_versions()[-1]))
    return compiler.named(OBJECT_META)


class ObjectSchema:
    """The schema of one kind. `root` is its node tree, for patches and field ownership."""

    def __init__(self, root: nodes.Node) -> None:
        self.root = root
        self._decodes = 0
        self._quick: QuickCheck | None = None

    def decode(self, obj: JsonObject) -> DecodeResult:
        """Check types, drop nulls and unknown fields and make quantities and times canonical, in place."""
        if self._quick is not None:
            if self._quick.accepts(obj):
                return _FINE
        else:
            self._decodes += 1
            if self._decodes > _QUICK_AFTER:
                self._quick = QuickCheck(self.root)
        found = nodes.Findings()
        self.root.decode(obj, (), found)
        if not found.errors and not found.unknown:
            return _FINE
        return DecodeResult(tuple(found.errors[:1]), tuple(found.unknown))

    def node(self, path: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the definition at a path of field names; lists are entered without an index."""
        found = nodes.walk(self.root, iter(path))
        return found.definition if found is not None else None


def compile_schema(definitions: Definitions, name: str) -> ObjectSchema:
    """Return the schema of a definition such as io.k8s.api.apps.v1.Deployment. Cheap: fields compile when needed."""
    if name not in definitions:
        raise KeyError(f"{name} is not among the OpenAPI definitions of this Kubernetes version")
    return ObjectSchema(_compiler(definitions).named(name))


def compile_structural_schema(openapi_v3_schema: Mapping[str, Any]) -> Schema:
    """Return the schema of a custom resource; see structural.py."""
    from tiphys.api.structural import StructuralSchema

    return StructuralSchema(openapi_v3_schema)


def find_duplicate_fields(data: bytes) -> list[str]:
    """Return the paths of keys that appear more than once in one object of a JSON text that parses.

    A text in compact form is compared with its own re-encoding first, which has no duplicates.
    """
    if orjson.dumps(orjson.loads(data)) == data:
        return []
    import json

    class Repeated(dict[str, Any]):
        """An object with the keys that it repeats."""

        repeated: tuple[str, ...] = ()

    seen_any = False

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen_any
        result = Repeated(pairs)
        if len(result) != len(pairs):
            seen_any = True
            counts = Counter(name for name, _ in pairs)
            result.repeated = tuple(name for name in counts if counts[name] > 1)
        return result

    document = json.loads(data, object_pairs_hook=hook, parse_int=str)  # int() refuses thousands of digits
    if not seen_any:
        return []
    found: list[str] = []

    def visit(value: Any, path: nodes.Path) -> None:
        if isinstance(value, Repeated):
            found.extend(nodes.path_text((path, name)) for name in value.repeated)
            for key, child in value.items():
                visit(child, (path, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                visit(child, (path, index))

    visit(document, ())
    return found
