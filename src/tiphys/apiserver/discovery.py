"""What the server tells about itself: groups, versions, resources, and its own version.

Documents are made from the `Kinds` table, and what other servers told of theirs, when they are asked for, and kept until
one of both changes. There are two forms of the same facts: the old one (one document a group version) and the aggregated one (all groups in
one document), which newer clients ask for by `Accept`. Every document has an ETag, so that a client that has it gets a
304. Input: the table and a request. Output: a `Response`; an unknown group or version is the 404 of any unknown path.

Spec: Kubernetes docs, "Kubernetes API discovery"; KEP-3352 (aggregated discovery).
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tiphys.api.kind import Kind, Kinds, Subresource
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.aggregation.priorities import group_priority, priority_of
from tiphys.base.errors import method_not_allowed, path_not_found
from tiphys.wire.message import JSON, Request, Response

if TYPE_CHECKING:
    from tiphys.apiserver.aggregation.documents import RemoteDocuments, RemoteVersion

_AGGREGATED_FROM = {"v2": 30, "v2beta1": 27}
"""Kubernetes minor from which each form of aggregated discovery is told by default."""

_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Return the sort key of an API version: v2 before v1 before v1beta2 before v1alpha1 before anything else."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (3, 0, 0, version)
    level = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (level, -int(match[1]), -int(match[3] or 0), version)


def has_etag(told: str, etag: str) -> bool:
    """Tell whether If-None-Match names an ETag: alone, in a list, as weak, or as any (RFC 9110, section 13.1.2)."""
    return told == etag or any(each.strip().removeprefix("W/") in (etag, "*") for each in told.split(","))


def storage_version_hash(group: str, version: str, kind: str) -> str:
    """Return the hash by which clients notice that a resource is stored in another version now."""
    digest = hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def version_info(version: tuple[int, int]) -> dict[str, str]:
    """Return the answer of /version. Clients read major, minor and gitVersion; the rest says who answers."""
    major, minor = version
    info = {"major": str(major), "minor": str(minor)}
    if minor >= 33:
        info["emulationMajor"], info["emulationMinor"] = str(major), str(minor)
        info["minCompatibilityMajor"], info["minCompatibilityMinor"] = str(major), str(minor - 1)
    return {
        **info,
        "gitVersion": f"v{major}.{minor}.0+tiphys",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{_architecture()}",
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    etag: str
    content_type: str


class Discovery:
    """Discovery documents of one table of kinds. `answer` is called by the router for /api, /apis, below and /version.

    `server_address` is `host:port` where clients reach the server; only the oldest clients read it. `aggregator` knows
    what other servers serve behind this one.
    """

    def __init__(self, kinds: Kinds, server_address: str = "", aggregator: Aggregator | None = None) -> None:
        self._kinds = kinds
        self._server_address = server_address
        self._aggregator = aggregator
        self._revision: tuple[int, int, frozenset[tuple[str, str]]] = (-1, -1, frozenset())
        self._documents: dict[tuple[str, str], _Document] = {}

    def answer(self, request: Request) -> Response:
        """Return the document at the request's path. Raises ApiError: 404 for unknown paths, 405 for other methods."""
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        path = request.path.rstrip("/")
        form = self._form(path, request.headers.get("accept", ""))
        document = self._document(path, form)
        headers = [("ETag", document.etag)]
        if path in ("/api", "/apis"):
            headers.append(("Vary", "Accept"))
        if form:
            headers.append(("Cache-Control", "public"))
        if has_etag(request.headers.get("if-none-match", ""), document.etag):
            return Response(304, b"", document.content_type, headers)
        return Response(200, document.body, document.content_type, headers)

    def _form(self, path: str, accept: str) -> str:
        """Return v2 or v2beta1 for aggregated discovery, "" for the old form: the first that the client names."""
        if path not in ("/api", "/apis"):
            return ""
        for media_type in accept.split(","):
            name, *parameters = (word.strip() for word in media_type.split(";"))
            values = dict(parameter.partition("=")[::2] for parameter in parameters)
            if name not in (JSON, "application/*", "*/*"):
                continue
            if values.get("as") != "APIGroupDiscoveryList":
                return ""
            form = values.get("v", "")
            known_from = _AGGREGATED_FROM.get(form)
            if known_from and values.get("g") == "apidiscovery.k8s.io" and self._minor >= known_from:
                return form
        return ""

    @property
    def _remote(self) -> RemoteDocuments | None:
        return None if self._aggregator is None else self._aggregator.documents

    @property
    def _withdrawn(self) -> frozenset[tuple[str, str]]:
        """Return what is not told among all groups, though it is served: nobody's APIService stands for it."""
        return frozenset() if self._aggregator is None else self._aggregator.withdrawn

    @property
    def _minor(self) -> int:
        return self._kinds.kubernetes_version[1]

    def _document(self, path: str, form: str) -> _Document:
        remote = self._remote
        revision = (self._kinds.revision, 0 if remote is None else remote.revision, self._withdrawn)
        if self._revision != revision:
            self._documents.clear()
            self._revision = revision
        document = self._documents.get((path, form))
        if document is None:
            content_type = JSON
            if form:
                content_type = f"{JSON};g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"
            body = orjson.dumps(self._make(path, form))
            etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
            document = self._documents[path, form] = _Document(body, etag, content_type)
        return document

    def _make(self, path: str, form: str) -> Any:
        groups = group_versions(self._kinds.all(), [] if self._remote is None else self._remote.versions())
        if path == "/version":
            return version_info(self._kinds.kubernetes_version)
        if path == "/api":
            return _aggregated({"": groups.get("", [])}, form) if form else self._core_versions(groups)
        if path == "/apis":
            named = _without(groups, self._withdrawn)
            if form:
                return _aggregated(named, form)
            listed = [_group(name, versions) for name, versions in named.items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        return _below(path, groups)

    def _core_versions(self, groups: Groups) -> Any:
        address = {"clientCIDR": "0.0.0.0/0", "serverAddress": self._server_address}
        versions = [each.version for each in groups.get("", ())]
        return {"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": [address]}


@dataclass(frozen=True, slots=True)
class GroupVersion:
    """One group version: of this server (`kinds`) or of another (`remote`)."""

    version: str
    priorities: tuple[int, int]
    """Of the group and of the version: the higher, the earlier clients see it."""
    kinds: list[Kind]
    remote: RemoteVersion | None = None


Groups = dict[str, list[GroupVersion]]
"""Group -> its versions, in the order in which discovery tells them."""


def group_versions(kinds: Iterable[Kind], remote: Iterable[RemoteVersion] = ()) -> Groups:
    """Return what is served by group and version. What another server answers for is not this one's, whatever it is."""
    found: dict[tuple[str, str], GroupVersion] = {
        (each.group, each.version): GroupVersion(each.version, (each.group_priority, each.version_priority), [], each)
        for each in remote
    }
    for kind in sorted(kinds, key=lambda kind: kind.plural):
        each = found.get((kind.group, kind.version))
        if each is None:
            priorities = priority_of(kind.group, kind.version, custom=kind.custom)
            each = found[kind.group, kind.version] = GroupVersion(kind.version, priorities, [])
        if each.remote is None:
            each.kinds.append(kind)
    groups: Groups = {}
    for (group, _), each in found.items():
        groups.setdefault(group, []).append(each)
    for versions in groups.values():
        versions.sort(key=lambda each: (-each.priorities[1], version_priority(each.version)))
    order = sorted(groups, key=lambda group: (-group_priority(each.priorities for each in groups[group]), group))
    return {group: groups[group] for group in order}


def _without(groups: Groups, withdrawn: frozenset[tuple[str, str]]) -> Groups:
    """Return the groups that have a name, without versions that are withdrawn."""
    told: Groups = {}
    for name, versions in groups.items():
        left = [each for each in versions if each.remote is not None or (name, each.version) not in withdrawn]
        if name and left:
            told[name] = left
    return told


def _below(path: str, groups: Groups) -> Any:
    """Return the document of /api/v1, /apis/<group> or /apis/<group>/<version>."""
    parts = path.strip("/").split("/")
    if len(parts) == 2 and parts[0] == "apis" and parts[1] and parts[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], groups[parts[1]])}
    group, version = "", ""
    if len(parts) == 2 and parts[0] == "api":
        version = parts[1]
    elif len(parts) == 3 and parts[0] == "apis" and parts[1]:
        group, version = parts[1:]
    found = next((each for each in groups.get(group, ()) if each.version == version and each.kinds), None)
    if found is None:
        raise path_not_found()
    return _resource_list(group, version, found.kinds)


def _group(name: str, versions: list[GroupVersion]) -> dict[str, Any]:
    told = [{"groupVersion": f"{name}/{each.version}", "version": each.version} for each in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resource_list(group: str, version: str, kinds: list[Kind]) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for kind in kinds:
        resources.append(_resource(kind))
        resources.extend(_subresource(kind, subresource) for subresource in kind.subresources)
    head = {"kind": "APIResourceList", "apiVersion": "v1"} if group else {"kind": "APIResourceList"}
    return {**head, "groupVersion": f"{group}/{version}" if group else version, "resources": resources}


def _resource(kind: Kind) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        resource["shortNames"] = kind.short_names
    if kind.categories:
        resource["categories"] = kind.categories
    if not kind.virtual:
        group, _, version = kind.storage_api_version.rpartition("/")
        resource["storageVersionHash"] = storage_version_hash(group, version, kind.kind)
    return resource


def _subresource(kind: Kind, subresource: Subresource) -> dict[str, Any]:
    told: dict[str, Any] = {"name": f"{kind.plural}/{subresource.name}", "singularName": ""}
    told["namespaced"] = kind.namespaced
    if subresource.group:
        told["group"], told["version"] = subresource.group, subresource.version
    told["kind"] = subresource.kind or kind.kind
    told["verbs"] = subresource.verbs
    return told


def _aggregated(groups: Groups, form: str) -> dict[str, Any]:
    items = [
        {"metadata": {"name": name} if name else {}, "versions": [_told_version(each) for each in versions]}
        for name, versions in groups.items()
    ]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{form}", "metadata": {}}
    return {**head, "items": items}


def _told_version(each: GroupVersion) -> dict[str, Any]:
    """Return a version with its resources; those of a server that does not answer are the last known ones."""
    if each.remote is None:
        resources: list[Any] = [_told(kind) for kind in each.kinds]
        return {"version": each.version, "resources": resources, "freshness": "Current"}
    told: dict[str, Any] = {"version": each.version}
    if each.remote.resources:
        told["resources"] = each.remote.resources
    return {**told, "freshness": "Current" if each.remote.fresh else "Stale"}


def _response_kind(kind: Kind, name: str, group: str = "", version: str = "") -> dict[str, str]:
    """Return the kind of an answer; an empty group and version mean those of the resource."""
    if kind.custom and not group:
        group, version = kind.group, kind.version
    return {"group": group, "version": version, "kind": name}


def _told(kind: Kind) -> dict[str, Any]:
    """Return a resource as aggregated discovery tells it."""
    resource: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    }
    if kind.short_names:
        resource["shortNames"] = kind.short_names
    if kind.categories:
        resource["categories"] = kind.categories
    if kind.subresources:
        resource["subresources"] = [_told_subresource(kind, subresource) for subresource in kind.subresources]
    return resource


def _told_subresource(kind: Kind, subresource: Subresource) -> dict[str, Any]:
    name = subresource.kind or kind.kind
    return {
        "subresource": subresource.name,
        "responseKind": _response_kind(kind, name, subresource.group, subresource.version),
        "verbs": subresource.verbs,
    }
