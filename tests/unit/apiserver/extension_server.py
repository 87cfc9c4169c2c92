"""A small extension API server, as an aggregation layer finds them: TLS, front-proxy authentication, discovery, OpenAPI,
tables and watches of one kind, `flunders.wardle.example.com`.

It believes X-Remote-* beside a certificate of the front-proxy authority and nobody else, tells in every object who made
it, and counts what it was asked. Test support.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tiphys.apiserver.frontproxy import remote_user
from tiphys.apiserver.user import User
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade
from tiphys.wire.server import HttpServer
from tiphys.wire.tls import KeyPair, create_ca, issue, server_context

GROUP, VERSION = "wardle.example.com", "v1alpha1"
ROOT = f"/apis/{GROUP}/{VERSION}"
DEFINITION = "com.example.wardle.v1alpha1.Flunder"
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass
class ExtensionServer:
    """`authority` signs its certificate for `<service>.<namespace>.svc`; `aggregated` False makes it an old server."""

    folder: Path
    front_proxy_ca: str
    issuer: str
    name: str = "sample.default.svc"
    aggregated: bool = True
    authorize: Callable[[User, str, str], bool] | None = None
    authority: KeyPair = field(default_factory=lambda: create_ca("extension"))
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    healthy: bool = True
    port: int = 0
    _server: HttpServer | None = None
    _sinks: list[Sink] = field(default_factory=list)
    _revision: int = 1

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> int:
        pair = issue(self.authority, self.name, dns_names=[self.name], server=True)
        pair.write(self.folder / "tls.crt", self.folder / "tls.key")
        (self.folder / "front.crt").write_text(self.front_proxy_ca)
        context = server_context(self.folder / "tls.crt", self.folder / "tls.key", self.folder / "front.crt")
        self._server = HttpServer(self.handle, ssl_context=context)
        self.port = await self._server.start(host, port)
        return self.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def handle(self, request: Request) -> Answer:
        answer = self._answer(request)
        self.asked.append(
            (request.method, request.path, 200 if isinstance(answer, Stream | Upgrade) else answer.status)
        )
        self.seen.append(request)
        return answer

    def _answer(self, request: Request) -> Answer:
        if not self.healthy:
            return _status(500, "the server is ill")
        user = remote_user(request.headers) if request.peer.issuer == self.issuer else None
        if user is None:
            return _status(401, "Unauthorized")
        path = request.path
        document = self._document(request)
        if document is not None:
            return document
        parts = path.removeprefix(ROOT).strip("/").split("/")
        if not path.startswith(ROOT):
            return _status(404, "not here")
        if self.authorize is not None and not self.authorize(user, request.method.lower(), path):
            return _status(403, f"{user.name} may not {request.method} {path}")
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        if len(parts) > 2 and parts[2] == "shout":
            return Upgrade(request.headers.get("upgrade", ""), _shout)
        if len(parts) == 2:
            return self._object(request, namespace, parts[1])
        return self._collection(request, namespace, user)

    def _document(self, request: Request) -> Response | None:
        path, accept = request.path, request.headers.get("accept", "")
        if path == "/apis" and self.aggregated and "as=APIGroupDiscoveryList" in accept:
            return _document(request, _aggregated(), AGGREGATED)
        if path == "/apis":
            return _document(request, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]})
        if path == f"/apis/{GROUP}":
            return _document(request, {"kind": "APIGroup", "apiVersion": "v1", **_group()})
        if path == ROOT:
            return _document(request, _resource_list())
        if path == "/openapi/v2":
            return _document(request, _openapi_v2())
        if path.startswith("/openapi/v3") and not self.aggregated:
            return _status(404, "an old server")
        if path == "/openapi/v3":
            url = f"/openapi/v3{ROOT}?hash=ABC"
            return _document(request, {"paths": {ROOT.lstrip("/"): {"serverRelativeURL": url}}})
        if path == f"/openapi/v3{ROOT}":
            return _document(request, _openapi_v3())
        return None

    def _collection(self, request: Request, namespace: str, user: User) -> Answer:
        if request.method == "POST":
            obj = orjson.loads(request.body)
            metadata = obj["metadata"]
            metadata |= {"namespace": namespace, "uid": f"uid-{metadata['name']}"}
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
            obj |= {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder"}
            obj["status"] = {"madeBy": user.name, "groups": list(user.groups)}
            self._put(obj, "ADDED")
            return Response(201, orjson.dumps(obj))
        items = [obj for (at, _), obj in sorted(self.objects.items()) if namespace in ("", at)]
        if request.param("watch") in ("1", "true"):
            return Stream(lambda sink: self._watch(sink, items if not request.param("resourceVersion") else []))
        metadata = {"resourceVersion": str(self._revision)}
        if "as=Table" in request.headers.get("accept", ""):
            return Response(200, orjson.dumps(_table(items, metadata)))
        listed = {"kind": "FlunderList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": metadata, "items": items}
        return Response(200, orjson.dumps(listed))

    def _object(self, request: Request, namespace: str, name: str) -> Response:
        obj = self.objects.get((namespace, name))
        if obj is None:
            return _status(404, f'flunders.{GROUP} "{name}" not found', "NotFound")
        if request.method == "DELETE":
            del self.objects[namespace, name]
            self._tell("DELETED", obj)
            return Response(200, orjson.dumps({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        if request.method in ("PUT", "PATCH"):
            obj = {**obj, **{key: value for key, value in orjson.loads(request.body).items() if key != "metadata"}}
            self._put(obj, "MODIFIED")
        if "as=Table" in request.headers.get("accept", ""):
            return Response(200, orjson.dumps(_table([obj], {})))
        return Response(200, orjson.dumps(obj))

    def _put(self, obj: dict[str, Any], event: str) -> None:
        self._revision += 1
        obj["metadata"]["resourceVersion"] = str(self._revision)
        self.objects[obj["metadata"]["namespace"], obj["metadata"]["name"]] = obj
        self._tell(event, obj)

    def _tell(self, event: str, obj: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.send(orjson.dumps({"type": event, "object": obj}) + b"\n")

    def _watch(self, sink: Sink, items: list[dict[str, Any]]) -> Callable[[], None]:
        self._sinks.append(sink)
        for obj in items:
            sink.send(orjson.dumps({"type": "ADDED", "object": obj}) + b"\n")
        return lambda: self._sinks.remove(sink)


async def _shout(connection: Connection) -> None:
    while data := await connection.read():
        await connection.write(data.upper())


def _status(code: int, message: str, reason: str = "") -> Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
    return Response(code, orjson.dumps({**status, "code": code}))


def _document(request: Request, document: Any, content_type: str = "application/json") -> Response:
    etag = f'"{request.path}"'
    if request.headers.get("if-none-match") == etag:
        return Response(304, b"", content_type, [("ETag", etag)])
    return Response(200, orjson.dumps(document), content_type, [("ETag", etag)])


def _group() -> dict[str, Any]:
    version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    return {"name": GROUP, "versions": [version], "preferredVersion": version}


def _resource_list() -> dict[str, Any]:
    flunders = {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": VERBS}
    shout = {"name": "flunders/shout", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]}
    resources = [{**flunders, "shortNames": ["fl"]}, shout]
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
    return {**head, "resources": resources}


def _aggregated() -> dict[str, Any]:
    kind = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    resource = {
        "resource": "flunders",
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": "flunder",
        "verbs": VERBS,
        "shortNames": ["fl"],
        "subresources": [{"subresource": "shout", "responseKind": kind, "verbs": ["get"]}],
    }
    version = {"version": VERSION, "resources": [resource], "freshness": "Current"}
    item = {"metadata": {"name": GROUP}, "versions": [version]}
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [item]}


def _schemas(prefix: str) -> dict[str, Any]:
    gvk = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    flunder = {
        "description": "Flunder is an example.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{prefix}{meta}"},
            "spec": {"description": "What is wanted.", "type": "object", "properties": {"size": {"type": "string"}}},
        },
        "x-kubernetes-group-version-kind": [gvk],
    }
    return {DEFINITION: flunder, meta: {"description": "Another wording.", "type": "object"}}


def _path(reference: str) -> dict[str, Any]:
    gvk = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
    ok = {"description": "OK", "schema": {"$ref": reference}}
    operation = {"x-kubernetes-action": "list", "x-kubernetes-group-version-kind": gvk, "responses": {"200": ok}}
    return {f"{ROOT}/namespaces/{{namespace}}/flunders": {"get": operation}}


def _openapi_v2() -> dict[str, Any]:
    head = {"swagger": "2.0", "info": {"title": "sample", "version": "v0"}}
    paths = {**_path(f"#/definitions/{DEFINITION}"), "/apis/": {"get": {"responses": {}}}}
    return {**head, "paths": paths, "definitions": _schemas("#/definitions/")}


def _openapi_v3() -> dict[str, Any]:
    prefix = "#/components/schemas/"
    head = {"openapi": "3.0.0", "info": {"title": "sample", "version": "v0"}}
    return {**head, "paths": _path(f"{prefix}{DEFINITION}"), "components": {"schemas": _schemas(prefix)}}


def _table(items: list[dict[str, Any]], metadata: dict[str, Any]) -> dict[str, Any]:
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Made By", "type": "string", "format": "", "description": "", "priority": 0},
    ]
    rows = [{"cells": [obj["metadata"]["name"], obj["status"]["madeBy"]], "object": obj} for obj in items]
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**head, "columnDefinitions": columns, "rows": rows}


def service_manifests(server: ExtensionServer, *, name: str = "sample", namespace: str = "default") -> list[Any]:
    """Return a Service that stands for the server on this machine, and the APIService."""
    import base64

    spec = {
        "service": {"name": name, "namespace": namespace, "port": server.port},
        "group": GROUP,
        "version": VERSION,
        "caBundle": base64.b64encode(server.authority.certificate).decode(),
        "groupPriorityMinimum": 2000,
        "versionPriority": 200,
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{GROUP}"},
            "spec": spec,
        },
    ]


async def ready(check: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Return what an async check returns as soon as it is true."""
    async with asyncio.timeout(timeout_s):
        while True:
            result = await check()
            if result:
                return result
            await asyncio.sleep(0.01)
