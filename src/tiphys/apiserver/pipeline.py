"""What happens to every request, in order: one function, `ApiServer.handle`, is the map.

Routing hands on to resources (resources.py) or to a non-resource path of the table given. Failures become a Status at
one place, here. Handlers never see a socket.

Spec: Kubernetes documentation, "Controlling access to the Kubernetes API"; "User impersonation".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from tiphys.apiserver.requestinfo import RequestInfo, parse_request_info
from tiphys.apiserver.user import AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, User
from tiphys.base.errors import ApiError, bad_request, forbidden, internal, path_not_found
from tiphys.wire.message import Answer, Request, Response

log = logging.getLogger(__name__)

REMEMBERED_PATHS = 4096


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> User:
        """Return who makes the request, system:anonymous without credentials. Raises ApiError(401) for bad ones."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """An authorizer's answer; `reason` is told to the client when it is a refusal and not empty."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    def authorize(self, user: User, info: RequestInfo) -> Decision: ...


ResourceHandler = Callable[[Request, RequestInfo, User], Awaitable[Answer]]
PathHandler = Callable[[Request, User], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Paths:
    """Non-resource paths: `exact` ones, and `prefixes` (ending in "/") for the rest, longest first."""

    exact: Mapping[str, PathHandler]
    prefixes: tuple[tuple[str, PathHandler], ...] = ()

    def find(self, path: str) -> PathHandler | None:
        handler = self.exact.get(path) or self.exact.get(path.rstrip("/"))
        if handler is not None:
            return handler
        return next((h for prefix, h in self.prefixes if path.startswith(prefix)), None)


class ApiServer:
    """The request pipeline. `handle` is the Handler that the HTTP core and the local client call."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: Authorizer,
        resources: ResourceHandler,
        paths: Paths,
        own_groups: Collection[str] = (),
    ) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._resources = resources
        self._paths = paths
        self._own_groups = frozenset(own_groups)
        self._gets: dict[str, RequestInfo] = {}
        """What plain GETs of paths seen lately ask for."""

    async def handle(self, request: Request) -> Answer:
        """Answer one request. Never raises but for cancellation."""
        try:
            user = self._authenticate(request)
            info = self._info(request)
            user = self._impersonate(request, user)
            self._authorize(user, info)
            return await self._route(request, info, user)
        except ApiError as error:
            return status_response(error) if error.code != 404 or error.details else self._no_such_path(request, error)
        except Exception as error:  # the request boundary: a bug in one request must not hurt another
            log.exception("%s %s failed", request.method, request.path)
            return status_response(internal(f"{type(error).__name__}: {error}"))

    def _info(self, request: Request) -> RequestInfo:
        if request.raw_query or request.method != "GET":
            return parse_request_info(request)
        info = self._gets.get(request.path)
        if info is None:
            info = parse_request_info(request)
            if len(self._gets) >= REMEMBERED_PATHS:
                self._gets.clear()
            self._gets[request.path] = info
        return info

    def _no_such_path(self, request: Request, error: ApiError) -> Response:
        """Upstream answers a path that nothing claims in plain text; below a group of its own it is a Status."""
        path = request.path
        if path.startswith(("/api/", "/version/")) or path in ("/api", "/version"):
            return status_response(error)
        parts = path.split("/", 3)
        if len(parts) > 2 and parts[1] == "apis" and parts[2] in self._own_groups:
            return status_response(error)
        return Response(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _authenticate(self, request: Request) -> User:
        trusted = request.peer.trusted_user
        if trusted is not None:
            return User(trusted[0], (*trusted[1], AUTHENTICATED))
        return self._authenticator.authenticate(request)

    def _authorize(self, user: User, info: RequestInfo) -> None:
        decision = self._authorizer.authorize(user, info)
        if not decision.allowed:
            raise denial(user, info, decision.reason)

    async def _route(self, request: Request, info: RequestInfo, user: User) -> Answer:
        if info.is_resource:
            return await self._resources(request, info, user)
        handler = self._paths.find(request.path)
        if handler is None:
            raise path_not_found()
        return await handler(request, user)

    def _impersonate(self, request: Request, user: User) -> User:
        headers = request.headers
        if "impersonate-user" not in headers:
            if "impersonate-group" in headers or "impersonate-uid" in headers:
                raise bad_request("requested impersonation of groups or uid without a user: set Impersonate-User")
            return user
        name = headers["impersonate-user"]
        groups = tuple(g.strip() for g in headers.get("impersonate-group", "").split(",") if g.strip())
        self._may_impersonate(user, "users", name)
        for group in groups:
            self._may_impersonate(user, "groups", group)
        if name.startswith(SERVICE_ACCOUNT_PREFIX) and not groups:
            namespace = name.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")[0]
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        extra = {
            key.removeprefix("impersonate-extra-"): (value,)
            for key, value in headers.items()
            if key.startswith("impersonate-extra-")
        }
        if AUTHENTICATED not in groups and name != "system:anonymous":
            groups = (*groups, AUTHENTICATED)
        return User(name, groups, headers.get("impersonate-uid", ""), extra)

    def _may_impersonate(self, user: User, resource: str, name: str) -> None:
        info = RequestInfo(True, "impersonate", "", "", "v1", "", resource, name)
        decision = self._authorizer.authorize(user, info)
        if not decision.allowed:
            raise denial(user, info, decision.reason)


def denial(user: User, info: RequestInfo, reason: str) -> ApiError:
    """Return the 403 that tells who may not do what, where."""
    if not info.is_resource:
        message = f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"'
        return ApiError(403, "Forbidden", message + (f": {reason}" if reason else ""), details={})
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {where}'
    return forbidden(info.group, info.resource, info.name, why + (f": {reason}" if reason else ""))


def status_response(error: ApiError) -> Response:
    """Return the answer for a failure: the one place where an ApiError becomes a Status."""
    return Response(error.code, orjson.dumps(error.status()), headers=error.headers)
