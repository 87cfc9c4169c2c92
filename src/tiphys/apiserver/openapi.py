"""OpenAPI documents: version 3, one document for each group version, and version 2, one for all.

Paths come from the table of kinds, schemas from the published definitions (built-in kinds) and from definitions of
custom resources. Documents are made when they are first asked for and kept until the table changes: start-up and the
hot path pay nothing. `kubectl explain`, validation and `apply` read them; they look for resources by
`x-kubernetes-group-version-kind` and for the query parameter `fieldValidation` on PATCH.

Spec: Kubernetes docs, "OpenAPI"; KEP-2896 (OpenAPI v3): documents are found by an index whose links carry a hash, so
that they can be cached for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tiphys.api.definitions import INT_OR_STRING, QUANTITY
from tiphys.api.kind import Kind, Kinds
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.customopenapi import as_v2, custom_schemas
from tiphys.apiserver.discovery import group_versions, has_etag, version_info
from tiphys.apiserver.openapipaths import resource_paths
from tiphys.base.errors import method_not_allowed, path_not_found
from tiphys.wire.message import JSON, Request, Response

if TYPE_CHECKING:
    from tiphys.apiserver.aggregation.documents import RemoteDocuments

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V2_PROTOBUF_ASKED = (V2_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
V3_PROTOBUF = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
_V3_PROTOBUF_ASKED = (V3_PROTOBUF, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")
"""Clients ask with an `@`, which is no valid media type: they get the valid one and refuse the other."""

Document = dict[str, Any]
Definitions = Mapping[str, Mapping[str, Any]]

_V2 = "#/definitions/"
_V3 = "#/components/schemas/"

_BODIES = (
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
)


@dataclass(frozen=True, slots=True)
class _Entry:
    body: bytes
    hash: str


class OpenApi:
    """OpenAPI documents of one table of kinds. `answer` is called by the router for /openapi/v2 and /openapi/v3."""

    def __init__(
        self, kinds: Kinds, load_definitions: Callable[[], Definitions], aggregator: Aggregator | None = None
    ) -> None:
        """`load_definitions` gives the definitions of the served Kubernetes version; it is called at the first use.
        `aggregator` knows what other servers tell of theirs; their v3 documents are asked of them."""
        self._kinds = kinds
        self._load = load_definitions
        self._aggregator = aggregator
        self._revision = (-1, -1)
        self._entries: dict[str, _Entry] = {}
        """Documents of the whole table, dropped when it changes."""
        self._groups: dict[str, tuple[list[Kind], _Entry]] = {}
        """Documents of group versions with the kinds that they were made of: a change elsewhere leaves them alone."""

    def is_at_hand(self, request: Request) -> bool:
        """Tell whether `answer` need not make a document: that takes up to 0.1 s, which belongs into a thread."""
        path = request.path.strip("/")
        if path.startswith("openapi/v3/"):
            group_path = path.removeprefix("openapi/v3/")
            group, version = _parse_group_path(group_path)
            if version is None:
                return True
            known = self._known_group(group_path, self._sorted_of(group, version)) is not None
            return known and "protobuf" not in request.headers.get("accept", "")
        if self._revision != self._current() or path not in self._entries:
            return False
        return "protobuf" not in request.headers.get("accept", "") or "openapi/v2.pb" in self._entries

    def answer(self, request: Request) -> Response:
        """Return the document at the request's path. Raises ApiError: 404 for unknown paths, 405 for other methods."""
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        revision = self._current()
        if self._revision != revision:
            self._entries.clear()
            self._revision = revision
        path = request.path.strip("/")
        if path == "openapi/v2":
            return self._v2(request)
        if path == "openapi/v3":
            return _respond(request, self._entry(path, self._index))
        group_path = path.removeprefix("openapi/v3/")
        group, version = _parse_group_path(group_path)
        if group_path == path or version is None or not self._of(group, version):
            raise path_not_found()
        return self._v3(request, group_path, group, version)

    @property
    def _remote(self) -> RemoteDocuments | None:
        return None if self._aggregator is None else self._aggregator.documents

    def _current(self) -> tuple[int, int]:
        return self._kinds.revision, 0 if self._remote is None else self._remote.revision

    def _v3(self, request: Request, path: str, group: str, version: str) -> Response:
        wanted = _first_of(request, _V3_PROTOBUF_ASKED)
        if not wanted:
            return Response(406, b"", "", [("Vary", "Accept")])
        entry = self._group_entry(path, group, version)
        asked = request.param("hash")
        if asked and asked != entry.hash:
            location = f"/openapi/v3/{path}?hash={entry.hash}"
            return Response(301, b"", JSON, [("Location", location), ("Vary", "Accept")])
        # what is asked for by its hash never changes
        headers = [("Cache-Control", "public, immutable, max-age=31536000")] if asked else []
        if wanted == JSON:
            return _respond(request, entry, headers)
        from tiphys.apiserver.openapiprotobufv3 import encode_v3

        packed = _Entry(encode_v3(orjson.loads(entry.body)), entry.hash)
        return _respond(request, packed, headers, V3_PROTOBUF)

    def _v2(self, request: Request) -> Response:
        entry = self._entry("openapi/v2", self._whole_document)
        wanted = _first_of(request, _V2_PROTOBUF_ASKED)
        if not wanted:
            return Response(406, b"", "", [("Vary", "Accept")])
        if wanted == JSON:
            return _respond(request, entry)
        from tiphys.apiserver.openapiprotobuf import encode_v2

        packed = self._entry("openapi/v2.pb", lambda: encode_v2(orjson.loads(entry.body)))
        return _respond(request, packed, content_type=V2_PROTOBUF)

    def _entry(self, path: str, make: Callable[[], Document | bytes]) -> _Entry:
        entry = self._entries.get(path)
        if entry is None:
            document = make()
            body = document if isinstance(document, bytes) else orjson.dumps(document)
            entry = self._entries[path] = _Entry(body, hashlib.sha256(body).hexdigest().upper())
        return entry

    def _group_entry(self, path: str, group: str, version: str) -> _Entry:
        kinds = self._sorted_of(group, version)
        entry = self._known_group(path, kinds)
        if entry is None:
            body = orjson.dumps(self._group_document(kinds))
            entry = _Entry(body, hashlib.sha256(body).hexdigest().upper())
            self._groups[path] = (kinds, entry)
        return entry

    def _known_group(self, path: str, kinds: list[Kind]) -> _Entry | None:
        made_of, entry = self._groups.get(path, ([], None))
        if len(made_of) != len(kinds) or any(a is not b for a, b in zip(made_of, kinds, strict=True)):
            return None
        return entry

    def _of(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._kinds.all() if (kind.group, kind.version) == (group, version)]

    def _sorted_of(self, group: str, version: str) -> list[Kind]:
        return sorted(self._of(group, version), key=lambda kind: kind.plural)

    def _index(self) -> Document:
        """Return the index: a link to the document of every group version, with the hash of its contents."""
        hashes = {}
        for group, versions in group_versions(self._kinds.all()).items():
            for each in versions:
                path = f"apis/{group}/{each.version}" if group else f"api/{each.version}"
                hashes[path] = self._group_entry(path, group, each.version).hash
        if self._remote is not None:
            hashes.update(self._remote.openapi_v3())
        return {
            "paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hash}"} for path, hash in hashes.items()}
        }

    def _info(self) -> Document:
        return {"title": "Kubernetes", "version": version_info(self._kinds.kubernetes_version)["gitVersion"]}

    def _group_document(self, kinds: list[Kind]) -> Document:
        schemas = self._schemas(kinds)
        paths: Document = {}
        for kind in kinds:
            paths.update(resource_paths(kind, definition_of(kind), list_definition_of(kind), self._kinds, v3=True))
        return {
            "openapi": "3.0.0",
            "info": self._info(),
            "paths": paths,
            "components": {"schemas": {name: _named_v3(name, schemas[name]) for name in sorted(schemas)}},
        }

    def _whole_document(self) -> Document:
        kinds = sorted(self._kinds.all(), key=lambda kind: (kind.group, kind.version, kind.plural))
        paths: Document = {}
        for kind in kinds:
            paths.update(resource_paths(kind, definition_of(kind), list_definition_of(kind), self._kinds, v3=False))
        document = {
            "swagger": "2.0",
            "info": self._info(),
            "paths": paths,
            "definitions": {name: as_v2(schema) for name, schema in sorted(self._schemas(kinds).items())},
        }
        if self._remote is None:
            return document
        from tiphys.apiserver.openapimerge import merge_v2

        return merge_v2(document, self._remote.openapi_v2())

    def _schemas(self, kinds: Iterable[Kind]) -> dict[str, Mapping[str, Any]]:
        """Return the schemas of the kinds, of their lists and requests, and all that these refer to (OpenAPI v2)."""
        definitions = self._load()
        own: dict[str, Mapping[str, Any]] = {}
        names: set[str] = set(_BODIES)
        for kind in kinds:
            name = definition_of(kind)
            names.update((name, list_definition_of(kind)))
            if kind.custom:
                own.update(custom_schemas(kind, name, list_definition_of(kind), definitions))
            for subresource in kind.subresources:
                body = self._kinds.by_kind(subresource.group, subresource.version, subresource.kind)
                if body is not None:
                    names.add(definition_of(body))
        return _closure(names, definitions, own)


def definition_of(kind: Kind) -> str:
    """Return the name of a kind's schema; that of a custom kind has its group backwards, e.g. com.example.v1.Thing."""
    if kind.definition:
        return kind.definition
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def list_definition_of(kind: Kind) -> str:
    """Return the name of the schema of a kind's lists."""
    return f"{definition_of(kind).rpartition('.')[0]}.{kind.list_kind}"


def _parse_group_path(path: str) -> tuple[str, str | None]:
    parts = path.split("/")
    if len(parts) == 2 and parts[0] == "api":
        return "", parts[1]
    if len(parts) == 3 and parts[0] == "apis":
        return parts[1], parts[2]
    return "", None


def _first_of(request: Request, others: Iterable[str] = ()) -> str:
    """Return the media type that the client prefers of JSON and `others`, "" if it takes none of them."""
    offered = {"*/*": JSON, "application/*": JSON, JSON: JSON, **{each: each for each in others}}
    clauses: list[tuple[float, str]] = []
    for clause in (request.headers.get("accept") or "*/*").split(","):
        media_type, *parameters = (word.strip() for word in clause.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        clauses.append((float(quality) if quality.replace(".", "", 1).isdigit() else 0.0, media_type))
    clauses.sort(key=lambda clause: -clause[0])
    return next((offered[media_type] for quality, media_type in clauses if media_type in offered and quality), "")


def _respond(
    request: Request, entry: _Entry, headers: Iterable[tuple[str, str]] = (), content_type: str = JSON
) -> Response:
    etag = f'"{entry.hash}"'
    told = [("ETag", etag), ("Vary", "Accept"), *headers]
    if has_etag(request.headers.get("if-none-match", ""), etag):
        return Response(304, b"", content_type, told)
    return Response(200, entry.body, content_type, told)


def _closure(
    names: Iterable[str], definitions: Definitions, own: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the named definitions and all that they refer to, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        definition = own.get(name) or definitions.get(name)
        if name in found or definition is None:
            continue
        found[name] = definition
        waiting.extend(_references(definition))
    return found


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_V2)
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


_EITHER = {
    QUANTITY: [{"type": "string"}, {"type": "number"}],
    INT_OR_STRING: [{"type": "integer"}, {"type": "string"}],
}


def _named_v3(name: str, definition: Mapping[str, Any]) -> Any:
    if name not in _EITHER:
        return _to_v3(definition)
    return {**{key: value for key, value in definition.items() if key != "type"}, "oneOf": _EITHER[name]}


def _to_v3(node: Any) -> Any:
    """Return a definition in OpenAPI v3: references move, and one with more beside it is wrapped in `allOf`."""
    if isinstance(node, list):
        return [_to_v3(value) for value in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {key: _to_v3(value) for key, value in node.items()}
    moved = {"$ref": _V3 + reference.removeprefix(_V2)}
    if len(node) == 1:
        return moved
    return {**{key: value for key, value in node.items() if key != "$ref"}, "allOf": [moved]}
