"""Keeps src/tiphys/api/data/messages.txt, the table of protobuf field numbers, equal to what stock clients are built of.

    python scripts/protobuf_messages.py check | update

Field names, numbers and types are read off the struct types in kubectl (newest and oldest minor at hand) and Helm 3,
which scripts/fetch_clients.py puts into .cache/clients/. Only messages are kept that the kinds of a served version can
reach. What no such client contains stands below as text. `check` also compares every field of every served schema with
the table, which needs no client: the unit tests do the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gostructs import GoBinary, GoField, GoType

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "src/tiphys/api/data/messages.txt"
CLIENTS = ROOT / ".cache/clients"
SOURCES = ("kubectl-1.37", "kubectl-1.36", "kubectl-1.35", "kubectl-1.31", "helm3")
"""Where types are looked up, the newest first. Fields that only an older one has are those of a version before."""

HEADER = """\
# Protocol buffer messages of Kubernetes' public API: facts of the protocol, as data. Read by api/protobuftable.py, kept
# by scripts/protobuf_messages.py.
# [package], then one message a line: NAME NUMBER=FIELD:TYPE ...
# TYPE: s string, b bytes, i integer, o boolean, d double, or a message; before it [ for a list, { for a map from
# strings. After it ! means that the message's fields stand in the JSON of the outer one; ? that absence differs from
# zero (a pointer in Go); + that JSON has the field though it is zero (no omitempty in Go).
"""

_META = "k8s.io/apimachinery/pkg/apis/meta/v1"
_AGGREGATOR = "k8s.io.kube-aggregator.pkg.apis.apiregistration.v1"
_BY_HAND = f"""\
[{_AGGREGATOR}]
APIService 1=metadata:meta.ObjectMeta 2=spec:APIServiceSpec 3=status:APIServiceStatus
APIServiceCondition 1=type:s+ 2=status:s+ 3=lastTransitionTime:meta.Time 4=reason:s 5=message:s
APIServiceSpec 1=service:ServiceReference? 2=group:s 3=version:s 4=insecureSkipTLSVerify:o 5=caBundle:b \
7=groupPriorityMinimum:i+ 8=versionPriority:i+
APIServiceStatus 1=conditions:[APIServiceCondition
ServiceReference 1=namespace:s 2=name:s 3=port:i?
"""
"""Messages of the aggregation layer, which no stock client contains."""
_REMOVED = {
    "k8s.io.api.core.v1.ClaimSource": "1=resourceClaimName:s? 2=resourceClaimTemplateName:s?",
    "k8s.io.api.core.v1.PersistentVolumeClaimStatus": "6=resizeStatus:s?",
    "k8s.io.api.core.v1.PodResourceClaim": "2=source:ClaimSource?",
    "k8s.io.api.core.v1.VolumeResourceRequirements": "3=claims:[ResourceClaim",
    "k8s.io.api.networking.v1.NetworkPolicy": "3=status:NetworkPolicyStatus?",
    "k8s.io.api.networking.v1.NetworkPolicyStatus": "1=conditions:[meta.Condition",
}
"""Fields of versions before those of the clients. None is written by newer ones, so all may be absent."""
_META_MESSAGES = [
    "ListMeta",
    "Status",
    "WatchEvent",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "GetOptions",
    "ListOptions",
    "ObjectMeta",
]
_SHORT = {
    "k8s.io.apimachinery.pkg.apis.meta.v1": "meta",
    "k8s.io.api.core.v1": "core",
    "k8s.io.apimachinery.pkg.api.resource": "resource",
    "k8s.io.apimachinery.pkg.util.intstr": "intstr",
    "k8s.io.apimachinery.pkg.runtime": "runtime",
}
_SCALARS = {"string": "s", "bool": "o", "int32": "i", "int64": "i", "uint32": "i", "uint64": "i", "float64": "d"}
_LETTERS = {"string": "s", "boolean": "o", "integer": "i", "number": "d"}
_OWN_FORM = frozenset(
    [
        "Time",
        "MicroTime",
        "Duration",
        "Quantity",
        "IntOrString",
        "RawExtension",
        "FieldsV1",
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
    ]
)
"""Messages whose JSON is not an object of their fields: the code knows them, not the table."""


def main(arguments: list[str]) -> int:
    if arguments not in (["check"], ["update"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments == ["update"]:
        TABLE.write_text(table())
    elif all((CLIENTS / name).exists() for name in SOURCES):
        if table() != TABLE.read_text():
            print(f"{TABLE} differs from the clients: run this script with `update`", file=sys.stderr)
            return 1
    else:
        print(f"the table is not compared with {', '.join(SOURCES)}: run scripts/fetch_clients.py 31 37 first")
    missing = list(missing_fields())
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def missing_fields() -> Iterator[str]:
    """Yield a line for each field of a served schema that the table does not have, or has otherwise."""
    from tiphys.api.definitions import load_definitions, supported_versions
    from tiphys.api.kinds import builtin_kinds
    from tiphys.api.protobuftable import message_name

    for version in supported_versions():
        definitions = load_definitions(version)
        seen: set[tuple[str, str]] = set()
        for kind in builtin_kinds(version):
            message = message_name(kind.api_version, kind.kind)
            where = f"Kubernetes {version[0]}.{version[1]}: {kind.api_version} {kind.kind}"
            if message is None:
                yield f"{where} has no message"
                continue
            ahead = [(message, kind.definition, where)]
            while ahead:
                pair = ahead[-1][:2]
                name, definition, path = ahead.pop()
                if pair not in seen and name.rpartition(".")[2] not in _OWN_FORM:
                    seen.add(pair)
                    yield from _compare(name, definitions[definition], path, ahead)


def _compare(message: str, definition: Any, path: str, ahead: list[tuple[str, str, str]]) -> Iterator[str]:
    """Compare one message with one definition; put the messages within it into `ahead`."""
    from tiphys.api.protobuftable import STRING_LISTS

    if message in STRING_LISTS:
        return
    fields = {field.name: field for field in _flat(message)}
    of_a_kind = {"apiVersion", "kind"} if "x-kubernetes-group-version-kind" in definition else set()
    for name, schema in (definition.get("properties") or {}).items():
        field = fields.get(name)
        if field is None:
            if name not in of_a_kind:
                yield f"{path}.{name} is not in the table"
            continue
        if field.repeated != (schema.get("type") == "array") or field.mapped != ("additionalProperties" in schema):
            yield f"{path}.{name} is a list or map in one and not in the other"
        inner = schema.get("items") or schema.get("additionalProperties") or schema
        reference = inner.get("$ref", "").rpartition("/")[2]
        if reference and len(field.kind) > 1:
            ahead.append((field.kind, reference, f"{path}.{name}"))
        elif not reference and (letter := _letter(inner)) not in (field.kind, ""):
            yield f"{path}.{name} is {letter} in the schema and {field.kind} in the table"


def _letter(schema: Any) -> str:
    return "b" if schema.get("format") == "byte" else _LETTERS.get(schema.get("type", ""), "")


def _flat(message: str) -> Iterator[Any]:
    """Yield the fields of a message as they stand in JSON."""
    from tiphys.api.protobuftable import messages

    for field in messages()[message]:
        if field.inline:
            yield from _flat(field.kind)
        else:
            yield field


def table() -> str:
    """Return the table as the clients have it."""
    types: dict[str, list[GoType]] = {}
    for source in SOURCES:
        for name, found in GoBinary(CLIENTS / source).structs().items():
            if name.startswith("k8s.io/"):
                types.setdefault(name, []).append(found)
    messages: dict[str, dict[int, str]] = {}
    wanted = list(_roots())
    while wanted:
        name = wanted.pop()
        full_name = name.replace("/", ".")
        if full_name not in messages and name in types:
            messages[full_name] = _fields(types[name], wanted)
    for name, text in _REMOVED.items():
        for field in text.split():
            messages.setdefault(name, {}).setdefault(int(field.partition("=")[0]), field)
    lines: list[str] = []
    for name in sorted(messages, key=lambda name: name.rpartition(".")[::2]):
        package, _, short = name.rpartition(".")
        if f"[{package}]" not in lines:
            lines.append(f"[{package}]")
        lines.append(" ".join([short, *(messages[name][number] for number in sorted(messages[name]))]))
    return HEADER + "\n".join(lines) + "\n" + _BY_HAND


def _fields(versions: list[GoType], wanted: list[str]) -> dict[int, str]:
    """Return the fields of a message by number: the newest type's, and those of older ones that were removed."""
    fields: dict[int, str] = {}
    for age, found in enumerate(versions):
        for field in found.fields:
            parsed = _field(field, found.package.replace("/", "."), wanted)
            if parsed is not None and parsed[0] not in fields:
                number, text = parsed
                removable = text.endswith("?") or ":[" in text or ":{" in text
                fields[number] = text if not age or removable else text.rstrip("+") + "?"
    return fields


def _roots() -> Iterator[str]:
    """Yield the import path and name of every kind of every served version."""
    from tiphys.api.definitions import supported_versions
    from tiphys.api.kinds import builtin_kinds

    for name in _META_MESSAGES:
        yield f"{_META}.{name}"
    for version in supported_versions():
        for kind in builtin_kinds(version):
            package, _, name = kind.definition.removeprefix("io.").rpartition(".")
            yield f"{package.replace('.', '/').replace('k8s/', 'k8s.io/', 1)}.{name}"


def _field(found: GoField, package: str, wanted: list[str]) -> tuple[int, str] | None:
    """Return (number, text) of a field, None for one that is no part of the message. Puts messages into `wanted`."""
    protobuf = re.search(r'protobuf:"[a-z0-9]+,(\d+),', found.tag)
    if protobuf is None:
        return None
    json = re.search(r'json:"([^",]*)([^"]*)"', found.tag)
    name, options = (json[1], json[2]) if json else ("", "")
    inline = found.embedded and not name
    name = name or found.name[0].lower() + found.name[1:]
    prefix, kind, pointer = _type(found.type, package, wanted)
    mark = "!" if inline else "?" if pointer else ""
    if not mark and not prefix and len(kind) == 1 and kind != "b" and "omit" not in options:
        mark = "+"
    return int(protobuf[1]), f"{protobuf[1]}={name}:{prefix}{kind}{mark}"


def _type(found: GoType, package: str, wanted: list[str]) -> tuple[str, str, bool]:
    """Return (prefix, letter or message, whether it is a pointer)."""
    element = found.element
    if found.kind == "pointer" and element is not None:
        return *_type(element, package, wanted)[:2], True
    if found.kind == "slice" and element is not None:
        if element.kind == "uint8":
            return "", "b", False
        return "[", _type(element, package, wanted)[1], False
    if found.kind == "map" and element is not None:
        if element.kind == "slice" and element.named:  # a list in a map is a message of its own
            return "{", _message(element, package), False
        return "{", _type(element, package, wanted)[1], False
    if found.kind == "struct":
        name = found.full_name.rpartition(".")[2]
        if name not in _OWN_FORM:
            wanted.append(found.full_name)
        elif name.startswith("JSONSchemaPropsOr"):
            wanted.extend(t.full_name for f in found.fields for t in _structs_of(f.type))
        return "", _message(found, package), False
    return "", _SCALARS[found.kind], False


def _structs_of(found: GoType) -> Iterator[GoType]:
    while found.element is not None:
        found = found.element
    if found.kind == "struct":
        yield found


def _message(found: GoType, package: str) -> str:
    of, name = found.package.replace("/", "."), found.full_name.rpartition(".")[2]
    return name if of == package else f"{_SHORT.get(of, of)}.{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
