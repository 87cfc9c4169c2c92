"""Paths of OpenAPI documents: the operations of one resource, made from its record in the table of kinds.

Every operation names its action and kind (`x-kubernetes-action`, `x-kubernetes-group-version-kind`), by which clients
find it, and lists the query parameters that the server takes. The same operations are written in the shape of OpenAPI
v2 or v3.

Spec: Kubernetes docs, "API concepts" (verbs, query parameters); OpenAPI Specification 2.0 and 3.0, "Operation Object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.api.kind import Kind, Kinds, Subresource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)

_PARAMETERS = {
    "allowWatchBookmarks": ("boolean", "Ask for bookmark events in a watch."),
    "command": ("string", "The command to run, one parameter an argument."),
    "container": ("string", "The container; by default the pod's only or default one."),
    "continue": ("string", "Token of the previous part of a list."),
    "dryRun": ("string", "All: do everything but store the result."),
    "fieldManager": ("string", "Name of the actor that makes the change."),
    "fieldSelector": ("string", "Select objects by their fields."),
    "fieldValidation": ("string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict."),
    "follow": ("boolean", "Go on with new lines as they come."),
    "force": ("boolean", "Take over fields that another manager owns (apply only)."),
    "gracePeriodSeconds": ("integer", "Seconds before the object is killed; 0 at once."),
    "labelSelector": ("string", "Select objects by their labels."),
    "limit": ("integer", "Most objects to return at once."),
    "limitBytes": ("integer", "Most bytes to return."),
    "orphanDependents": ("boolean", "Deprecated: see propagationPolicy."),
    "path": ("string", "Path of the request to pass on."),
    "ports": ("integer", "Ports to forward."),
    "pretty": ("string", "Indent the answer."),
    "previous": ("boolean", "Lines of the container's last run."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "The version from which to read."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with all objects."),
    "sinceSeconds": ("integer", "Lines of the last seconds only."),
    "stderr": ("boolean", "Connect standard error."),
    "stdin": ("boolean", "Connect standard input."),
    "stdout": ("boolean", "Connect standard output."),
    "tailLines": ("integer", "Last lines only."),
    "timeoutSeconds": ("integer", "End the request after so many seconds."),
    "timestamps": ("boolean", "Begin each line with its time."),
    "tty": ("boolean", "Give the command a terminal."),
    "watch": ("boolean", "Watch for changes instead of listing."),
}

_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_CONNECT: Mapping[str, Sequence[str]] = {
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "log": ("container", "follow", "limitBytes", "previous", "sinceSeconds", "tailLines", "timestamps"),
    "portforward": ("ports",),
    "proxy": ("path",),
}
_CODES: Mapping[str, Mapping[str, str]] = {
    "post": {"201": "Created", "202": "Accepted"},
    "put": {"201": "Created"},
    "patch": {"201": "Created"},
    "delete": {"202": "Accepted"},
}
"""Codes of success besides 200, by action."""


def _patch_types(kind: Kind) -> tuple[str, ...]:
    """Return the media types of a PATCH. Custom kinds know no strategic merge: kubectl apply asks this document."""
    return tuple(name for name in _PATCH_TYPES if not (kind.custom and "strategic" in name))


@dataclass(frozen=True, slots=True)
class _Operation:
    """One operation before it is written in either version of OpenAPI."""

    method: str
    action: str
    parameters: Sequence[str] = ()
    body: str = ""
    """Name of the request's schema, "" for none."""
    answer: str = ""
    """Name of the answer's schema, "" for one that is no object."""


def resource_paths(kind: Kind, definition: str, listing: str, kinds: Kinds, *, v3: bool) -> dict[str, Any]:
    """Return path -> path item for a resource and its subresources; its schemas are `definition` and `listing`."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    base = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    writer = _Writer(kind, v3)
    paths: dict[str, Any] = {}
    collection = _collection_operations(kind, definition, listing)
    if collection:
        paths[base] = writer.item(collection, named=False, namespaced=kind.namespaced)
    if kind.namespaced and "list" in kind.verbs:
        everywhere = [operation for operation in collection if operation.action == "list"]
        paths[f"{root}/{kind.plural}"] = writer.item(everywhere, named=False, namespaced=False)
    single = _object_operations(kind, definition)
    if single:
        paths[f"{base}/{{name}}"] = writer.item(single, named=True, namespaced=kind.namespaced)
    for subresource in kind.subresources:
        body = kinds.by_kind(subresource.group, subresource.version, subresource.kind) if subresource.group else None
        name = body.definition if body is not None else definition
        operations = _subresource_operations(subresource, name)
        path = f"{base}/{{name}}/{subresource.name}"
        paths[path] = writer.item(operations, named=True, namespaced=kind.namespaced, subresource=subresource)
    return paths


def _collection_operations(kind: Kind, definition: str, listing: str) -> list[_Operation]:
    operations = []
    if "list" in kind.verbs:
        operations.append(_Operation("get", "list", _LIST, answer=listing))
    if "create" in kind.verbs:
        operations.append(_Operation("post", "post", _WRITE, definition, definition))
    if "deletecollection" in kind.verbs:
        parameters = sorted({*_LIST, *_DELETE} - {"watch", "allowWatchBookmarks"})
        body = f"{_META}DeleteOptions"
        operations.append(_Operation("delete", "deletecollection", parameters, body, f"{_META}Status"))
    return operations


def _object_operations(kind: Kind, definition: str) -> list[_Operation]:
    operations = []
    if "get" in kind.verbs:
        operations.append(_Operation("get", "get", (), answer=definition))
    if "update" in kind.verbs:
        operations.append(_Operation("put", "put", _WRITE, definition, definition))
    if "patch" in kind.verbs:
        operations.append(_Operation("patch", "patch", (*_WRITE, "force"), f"{_META}Patch", definition))
    if "delete" in kind.verbs:
        operations.append(_Operation("delete", "delete", _DELETE, f"{_META}DeleteOptions", f"{_META}Status"))
    return operations


_METHODS = {"get": "get", "update": "put", "patch": "patch", "create": "post", "delete": "delete"}


def _subresource_operations(subresource: Subresource, definition: str) -> list[_Operation]:
    connects = _CONNECT.get(subresource.name)
    operations = []
    for verb in subresource.verbs:
        method = _METHODS[verb]
        if connects is not None:
            action = "get" if subresource.name == "log" else "connect"
            operations.append(_Operation(method, action, connects))
        elif verb == "get":
            operations.append(_Operation(method, "get", (), answer=definition))
        elif verb == "patch":
            operations.append(_Operation(method, "patch", (*_WRITE, "force"), f"{_META}Patch", definition))
        else:
            operations.append(_Operation(method, method, _WRITE, definition, definition))
    return operations


class _Writer:
    """Writes the operations of one kind in OpenAPI v2 or v3."""

    def __init__(self, kind: Kind, v3: bool) -> None:
        self._kind = kind
        self._v3 = v3

    def item(
        self, operations: Sequence[_Operation], *, named: bool, namespaced: bool, subresource: Subresource | None = None
    ) -> dict[str, Any]:
        """Return a path item."""
        item: dict[str, Any] = {
            operation.method: self._operation(operation, named, namespaced, subresource) for operation in operations
        }
        parameters = [self._path_parameter("name", f"Name of the {self._kind.kind}.")] if named else []
        if namespaced:
            parameters.append(self._path_parameter("namespace", "Namespace of the object."))
        item["parameters"] = [*parameters, self._query_parameter("pretty")]
        return item

    def _operation(
        self, operation: _Operation, named: bool, namespaced: bool, subresource: Subresource | None
    ) -> dict[str, Any]:
        kind = self._kind
        group_version_kind = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        if subresource is not None and subresource.kind:
            group_version_kind["kind"] = subresource.kind
            if subresource.group:
                group_version_kind["group"], group_version_kind["version"] = subresource.group, subresource.version
        written: dict[str, Any] = {
            "operationId": self._operation_id(operation, named, namespaced, subresource),
            "description": f"{operation.action} {kind.kind}{f' {subresource.name}' if subresource else ''}",
            "tags": [f"{_identifier(kind.group.split('.')[0] or 'core')}_{kind.version}"],
            "parameters": [self._query_parameter(name) for name in operation.parameters],
            "responses": self._answers(operation),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": group_version_kind,
        }
        self._add_body(written, operation)
        return written

    def _operation_id(
        self, operation: _Operation, named: bool, namespaced: bool, subresource: Subresource | None
    ) -> str:
        kind = self._kind
        verbs = {"get": "read", "put": "replace", "post": "create", "deletecollection": "deleteCollection"}
        verb = verbs.get(operation.action, operation.action)
        if operation.action == "connect":
            verb = f"connect{operation.method.capitalize()}"
        group = "".join(word.capitalize() for word in _identifier(kind.group.split(".")[0] or "core").split("_"))
        scope = "Namespaced" if namespaced else ""
        everywhere = "ForAllNamespaces" if kind.namespaced and not namespaced and not named else ""
        part = subresource.name.capitalize() if subresource is not None else ""
        return f"{verb}{group}{kind.version.capitalize()}{scope}{kind.kind}{part}{everywhere}"

    def _add_body(self, written: dict[str, Any], operation: _Operation) -> None:
        required = operation.action not in ("delete", "deletecollection")
        types = _patch_types(self._kind) if operation.action == "patch" else ("application/json", "application/yaml")
        if not self._v3:
            written["produces"] = ["application/json", "application/yaml"]
            written["consumes"] = list(types) if operation.body else ["*/*"]
        if not operation.body:
            return
        schema = self._reference(operation.body)
        if self._v3:
            content = {media_type: {"schema": schema} for media_type in types}
            written["requestBody"] = {"content": content, **({"required": True} if required else {})}
        else:
            body = {"name": "body", "in": "body", "schema": schema}
            written["parameters"].append({**body, "required": True} if required else body)

    def _answers(self, operation: _Operation) -> dict[str, Any]:
        codes = {"200": "OK", **_CODES.get(operation.action, {})}
        answers = {code: self._answer(operation.answer, text) for code, text in codes.items()}
        return {**answers, "401": {"description": "Unauthorized"}}

    def _answer(self, definition: str, text: str) -> dict[str, Any]:
        if not definition:
            schema: dict[str, Any] = {"type": "string"}
            content_type = "*/*"
        else:
            schema, content_type = self._reference(definition), "application/json"
        if self._v3:
            return {"description": text, "content": {content_type: {"schema": schema}}}
        return {"description": text, "schema": schema}

    def _reference(self, definition: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{definition}" if self._v3 else f"#/definitions/{definition}"}

    def _query_parameter(self, name: str) -> dict[str, Any]:
        type_, description = _PARAMETERS[name]
        head = {"name": name, "in": "query", "description": description}
        if self._v3:
            return {**head, "schema": {"type": type_, "uniqueItems": True}}
        return {**head, "type": type_, "uniqueItems": True}

    def _path_parameter(self, name: str, description: str) -> dict[str, Any]:
        head = {"name": name, "in": "path", "required": True, "description": description}
        if self._v3:
            return {**head, "schema": {"type": "string", "uniqueItems": True}}
        return {**head, "type": "string", "uniqueItems": True}


def _identifier(text: str) -> str:
    return text.replace("-", "_")
