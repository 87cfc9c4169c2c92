"""What documents of remote API servers say: discovery in both its forms, OpenAPI in both its versions. Pure.

They come from other people's servers, so everything is looked at before it is used: what is not as it should be raises
BadDocument, and the caller goes on with what was known before.

Spec: Kubernetes docs, "Kubernetes API discovery", "OpenAPI V2", "OpenAPI V3".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from tiphys.apiserver.aggregation.apiservices import ApiService
from tiphys.base.errors import TiphysError
from tiphys.wire.http_client import WholeAnswer

_PARAMETER = "#/parameters/"
Document = dict[str, Any]


class BadDocument(TiphysError):
    """A server told something that is no document of its kind."""


def parse_document(answer: WholeAnswer) -> Document:
    """Return the object that an answer holds. Raises BadDocument."""
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise BadDocument(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadDocument("not a JSON object")
    return document


def _list(document: Mapping[str, Any], key: str) -> list[Document]:
    """Return the objects in a list of a document."""
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadDocument(f"{key} is not a list of objects")
    return value


def parse_aggregated(document: Document) -> dict[tuple[str, str], Sequence[Document]]:
    """Return (group, version) -> resources of an APIGroupDiscoveryList. Raises BadDocument."""
    found: dict[tuple[str, str], Sequence[Document]] = {}
    for group in _list(document, "items"):
        metadata = group.get("metadata")
        name = str(metadata.get("name") or "") if isinstance(metadata, dict) else ""
        for version in _list(group, "versions"):
            found[name, str(version.get("version"))] = _list(version, "resources")
    return found


def convert_resource_list(document: Document, group: str, version: str) -> list[Document]:
    """Return the resources of an APIResourceList as aggregated discovery tells them. Raises BadDocument."""
    found: dict[str, Document] = {}
    parts: list[tuple[str, str, Document]] = []
    for told in _list(document, "resources"):
        name, slash, part = str(told.get("name") or "").partition("/")
        kind = {
            "group": told.get("group") or group,
            "version": told.get("version") or version,
            "kind": told.get("kind") or "",
        }
        if slash:
            parts.append((name, part, {"responseKind": kind, "verbs": told.get("verbs") or []}))
            continue
        resource: Document = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if told.get("namespaced") else "Cluster",
            "singularResource": told.get("singularName") or "",
            "verbs": told.get("verbs") or [],
        }
        resource.update({key: told[key] for key in ("shortNames", "categories") if told.get(key)})
        found[name] = resource
    for name, part, subresource in parts:
        if name in found:
            found[name].setdefault("subresources", []).append({"subresource": part, **subresource})
    return list(found.values())


def find_v3_hash(document: Document, service: ApiService) -> str:
    """Return the hash that an index of v3 documents tells of a service's own, "" if it tells none."""
    paths = document.get("paths")
    told = paths.get(service.root.lstrip("/")) if isinstance(paths, dict) else None
    url = told.get("serverRelativeURL") if isinstance(told, dict) else None
    return str(url or "").partition("hash=")[2].partition("&")[0] or ("unknown" if url else "")


def take_v2(answer: WholeAnswer, service: ApiService) -> Document:
    """Return the paths of a service's group and the definitions that they need. Raises BadDocument."""
    document = parse_document(answer)
    paths, definitions = document.get("paths"), document.get("definitions")
    if not isinstance(paths, dict) or not isinstance(definitions, dict):
        raise BadDocument("/openapi/v2 has no paths or no definitions")
    from tiphys.apiserver.openapimerge import convert_to_v3
    from tiphys.apiserver.openapiprotobuf import encode_v2

    try:
        part = _part_of_group(service.group, paths, definitions, document.get("parameters") or {})
        # all clients would get what cannot be written in every form that they ask for
        encode_v2({"swagger": "2.0", "info": {"title": "", "version": ""}, **part})
        orjson.dumps(convert_to_v3(part))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError, struct.error) as error:
        raise BadDocument(f"/openapi/v2 is not well formed: {type(error).__name__}: {error}") from error
    return part


def _part_of_group(group: str, paths: Document, definitions: Document, parameters: Document) -> Document:
    own = {
        path: _with_parameters(item, parameters) for path, item in paths.items() if path.startswith(f"/apis/{group}/")
    }
    needed = {name: each for name, each in definitions.items() if _is_kind_of(group, each)}
    waiting = [*_references(own), *_references(needed)]
    while waiting:
        name = waiting.pop()
        if name not in needed and name in definitions:
            needed[name] = definitions[name]
            waiting.extend(_references(definitions[name]))
    return {"paths": own, "definitions": needed}


def _is_kind_of(group: str, definition: Any) -> bool:
    kinds = definition.get("x-kubernetes-group-version-kind") or ()
    return any(kind.get("group") == group for kind in kinds)


def make_v3(part: Document) -> tuple[bytes, str]:
    """Return the v3 document of a v2 part, and its hash."""
    from tiphys.apiserver.openapimerge import convert_to_v3

    document = orjson.dumps(convert_to_v3(part))
    return document, hashlib.sha256(document).hexdigest().upper()


def _with_parameters(node: Any, parameters: Mapping[str, Any]) -> Any:
    """Return a path with the parameters that it refers to written out: others have none of that name."""
    if isinstance(node, list):
        return [_with_parameters(value, parameters) for value in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith(_PARAMETER):
        return parameters.get(reference.removeprefix(_PARAMETER), node)
    return {key: _with_parameters(value, parameters) for key, value in node.items()}


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix("#/definitions/")
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
