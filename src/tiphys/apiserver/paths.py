"""Non-resource paths: discovery, OpenAPI, version, health, metrics, and the token issuer's documents.

Spec: Kubernetes documentation, "Kubernetes API health endpoints", "Service account issuer discovery".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import orjson

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kinds
from tiphys.apiserver.cache import WatchCache
from tiphys.apiserver.discovery import Discovery
from tiphys.apiserver.metrics import format_metrics
from tiphys.apiserver.openapi import OpenApi
from tiphys.apiserver.pipeline import PathHandler, Paths
from tiphys.apiserver.tokens import Tokens
from tiphys.apiserver.user import User
from tiphys.base.errors import path_not_found
from tiphys.store.interface import Store
from tiphys.wire.message import Answer, Request, Response

_TEXT = "text/plain; charset=utf-8"
Check = Callable[[], str]
"""Returns "" when all is well, otherwise what is not."""


def server_paths(
    kinds: Kinds, tokens: Tokens, store: Store, cache: WatchCache, checks: Mapping[str, Check], server_address: str
) -> Paths:
    """Return the table of non-resource paths. `checks` are told by /readyz and /livez one by one."""
    discovery = Discovery(kinds, server_address)
    openapi = OpenApi(kinds, lambda: load_definitions(kinds.kubernetes_version))

    async def discover(request: Request, user: User) -> Answer:
        return discovery.answer(request)

    making = asyncio.Lock()

    async def describe(request: Request, user: User) -> Answer:
        if openapi.is_at_hand(request):
            return openapi.answer(request)
        async with making:  # one thread makes what several ask for at once
            return await asyncio.to_thread(openapi.answer, request)

    async def health(request: Request, user: User) -> Answer:
        return _health(request, checks)

    async def metrics(request: Request, user: User) -> Answer:
        return Response(200, format_metrics(cache, store), "text/plain; version=0.0.4; charset=utf-8")

    async def jwks(request: Request, user: User) -> Answer:
        return Response(200, tokens.jwks(), "application/jwk-set+json")

    async def issuer(request: Request, user: User) -> Answer:
        return Response(200, tokens.discovery(f"https://{server_address}/openid/v1/jwks"))

    exact: dict[str, PathHandler] = {
        "/api": discover,
        "/apis": discover,
        "/version": discover,
        "/openapi/v2": describe,
        "/openapi/v3": describe,
        "/healthz": health,
        "/livez": health,
        "/readyz": health,
        "/metrics": metrics,
        "/openid/v1/jwks": jwks,
        "/.well-known/openid-configuration": issuer,
    }

    async def index(request: Request, user: User) -> Answer:
        return Response(200, orjson.dumps({"paths": sorted([*exact, "/api/", "/apis/", "/openapi/v3/"])}))

    prefixes = (
        ("/openapi/v3/", describe),
        ("/healthz/", health),
        ("/livez/", health),
        ("/readyz/", health),
        ("/apis/", discover),
        ("/api/", discover),
    )
    return Paths({**exact, "/": index}, prefixes)


def _health(request: Request, checks: Mapping[str, Check]) -> Response:
    """Answer `ok`, or with 500 and the list of checks when one fails; `?verbose` and one check by path as upstream."""
    parts = request.path.strip("/").split("/")
    endpoint = parts[0]
    excluded = set(request.query.get("exclude", ()))
    if len(parts) > 1:
        check = checks.get(parts[1])
        if check is None:
            raise path_not_found()
        problem = check()
        return Response(500 if problem else 200, (problem or "ok").encode(), _TEXT)
    results = {name: check() for name, check in {"ping": lambda: "", **checks}.items() if name not in excluded}
    lines = [f"[-]{name} failed: {problem}" if problem else f"[+]{name} ok" for name, problem in results.items()]
    if any(results.values()):
        return Response(500, "\n".join([*lines, f"{endpoint} check failed", ""]).encode(), _TEXT)
    if "verbose" in request.query:
        return Response(200, "\n".join([*lines, f"{endpoint} check passed", ""]).encode(), _TEXT)
    return Response(200, b"ok", _TEXT)
