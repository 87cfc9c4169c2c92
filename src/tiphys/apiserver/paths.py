"""Non-resource paths: discovery, OpenAPI, version, health, metrics, and the token issuer's documents.

Spec: Kubernetes documentation, "Kubernetes API health endpoints", "Service account issuer discovery".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kinds
from tiphys.apiserver.aggregation.aggregator import Aggregator
from tiphys.apiserver.discovery import Discovery
from tiphys.apiserver.health import ENDPOINTS, Health
from tiphys.apiserver.openapi import OpenApi
from tiphys.apiserver.pipeline import PathHandler, Paths
from tiphys.apiserver.presenting import present
from tiphys.apiserver.tokens import Tokens
from tiphys.apiserver.user import User
from tiphys.base.metrics import CONTENT_TYPE, Metrics
from tiphys.wire.message import Answer, Request, Response

_AN_HOUR = (("Cache-Control", "public, max-age=3600"),)


def server_paths(
    kinds: Kinds,
    tokens: Tokens,
    health: Health,
    metrics: Metrics,
    server_address: str,
    more: Mapping[str, PathHandler] | None = None,
    *,
    aggregator: Aggregator | None = None,
) -> Paths:
    """Return the table of non-resource paths. `more` are served and not listed. `aggregator` knows what other servers
    answer for."""
    discovery = Discovery(kinds, server_address, aggregator)
    openapi = OpenApi(kinds, lambda: load_definitions(kinds.kubernetes_version), aggregator)

    async def discover(request: Request, user: User) -> Answer:
        service = aggregator.find(request.path) if aggregator is not None else None
        if aggregator is not None and service is not None:
            return await aggregator.forward(request, user, service)
        return present(discovery.answer(request), request)

    making = asyncio.Lock()

    async def describe(request: Request, user: User) -> Answer:
        told = await aggregator.describe(request) if aggregator is not None else None
        if told is not None:
            return told
        if openapi.is_at_hand(request):
            return openapi.answer(request)
        async with making:  # one thread makes what several ask for at once
            return await asyncio.to_thread(openapi.answer, request)

    async def tell_health(request: Request, user: User) -> Answer:
        return health.answer(request)

    async def tell_metrics(request: Request, user: User) -> Answer:
        return await _scraped(metrics)

    async def jwks(request: Request, user: User) -> Answer:
        return Response(200, tokens.jwks(), "application/jwk-set+json", _AN_HOUR)

    async def issuer(request: Request, user: User) -> Answer:
        body = tokens.discovery(f"https://{server_address}/openid/v1/jwks")
        return Response(200, body, headers=_AN_HOUR)

    exact: dict[str, PathHandler] = {
        "/api": discover,
        "/apis": discover,
        "/version": discover,
        "/openapi/v2": describe,
        "/openapi/v3": describe,
        **{f"/{endpoint}": tell_health for endpoint in ENDPOINTS},
        "/metrics": tell_metrics,
        "/openid/v1/jwks": jwks,
        "/.well-known/openid-configuration": issuer,
    }

    async def index(request: Request, user: User) -> Answer:
        listed = {*exact, "/api/", "/apis/", "/openapi/v3/", *health.paths()}
        return Response(200, orjson.dumps({"paths": sorted(listed)}))

    prefixes = (
        ("/openapi/v3/", describe),
        *((f"/{endpoint}/", tell_health) for endpoint in ENDPOINTS),
        ("/apis/", discover),
        ("/api/", discover),
    )
    return Paths({**exact, "/": index, **(more or {})}, prefixes)


async def _scraped(metrics: Metrics) -> Response:
    """Return the text of all metrics, made in many turns: it is too long for one."""
    parts = []
    for piece in metrics.pieces():
        parts.append(piece)
        await asyncio.sleep(0)
    return Response(200, parts, CONTENT_TYPE)
