"""Requests to remote API servers: who asks is said in headers, beside this server's front-proxy certificate.

The user was authenticated and authorized here; the remote server believes the headers because of the certificate, and
authorizes again if it likes. Everything else passes as it came: bodies, watches, upgrades, compressed answers.

Bounds: the contexts of CONTEXTS_LIMIT different authorities are kept.

Spec: Kubernetes documentation, "Configure the Aggregation Layer" (authentication flow).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from urllib.parse import quote

from tiphys.apiserver.aggregation.apiservices import ApiService, ServiceReference
from tiphys.apiserver.backends import Backends, Target, passed_headers
from tiphys.apiserver.endpoints import NOBODY_THERE, Address, NotRoutable, ServiceResolver
from tiphys.apiserver.frontproxy import FrontProxy, identity_headers
from tiphys.apiserver.user import MASTERS, User
from tiphys.base.errors import ApiError, TiphysError
from tiphys.wire.http_client import StreamedAnswer, WholeAnswer
from tiphys.wire.message import Answer, Request, Response
from tiphys.wire.tls import client_context

AGGREGATOR = User("system:kube-aggregator", (MASTERS,))
"""Who asks for discovery: it may always."""
OPENAPI_READER = User("system:aggregator")
HEAD_TIMEOUT_S = 60.0
CONTEXTS_LIMIT = 64
_TEXT = "text/plain; charset=utf-8"


class BadAuthority(TiphysError):
    """The authorities of an APIService cannot be read."""


class Forwarder:
    """Sends requests to remote API servers. `choose(n)` returns a number below n. `close` when done."""

    def __init__(self, resolver: ServiceResolver, front_proxy: FrontProxy | None, choose: Callable[[int], int]) -> None:
        self._resolver = resolver
        self._choose = choose
        self._front_proxy = front_proxy
        self._backends = Backends()
        self._contexts: dict[tuple[bytes, bool], ssl.SSLContext] = {}

    @property
    def reaches(self) -> bool:
        """Whether this server has a certificate to show, and so a network to use."""
        return self._front_proxy is not None

    async def forward(self, request: Request, user: User, service: ApiService) -> Answer:
        """Answer a client's request by the remote server. What goes wrong on the way is told in plain text (503)."""
        if not service.available:
            return _unavailable()
        try:
            targets = self.targets(service)
        except (NotRoutable, BadAuthority):
            return _unavailable()
        headers = passed_headers(request, *identity_headers(user))
        headers.append(("X-Forwarded-Uri", quote(request.path, safe="$&+,/:;=@~")))
        query = f"?{request.raw_query}" if request.raw_query else ""
        watches = request.param("watch") in ("1", "true") if request.raw_query else False
        failure = ""
        for target in targets:
            try:
                return await self._backends.forward(
                    request,
                    target,
                    f"{request.raw_path or quote(request.path)}{query}",
                    headers=headers,
                    timeout_s=None if watches else HEAD_TIMEOUT_S,
                )
            except ApiError as error:
                failure = error.message
                if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in NOBODY_THERE):
                    break
        return Response(503, f"{failure}\n".encode(), _TEXT)

    def targets(self, service: ApiService) -> list[Target]:
        """Return the servers behind an APIService in the order in which they are tried, any of them first.

        Raises NotRoutable, BadAuthority.
        """
        assert service.service is not None, "a local APIService is not forwarded"
        found = self.addresses(service.service)
        first = self._choose(len(found))
        return [self.at(service, *address) for address in found[first:] + found[:first]]

    def target(self, service: ApiService) -> Target:
        """Return one of them. Raises NotRoutable, BadAuthority."""
        return self.targets(service)[0]

    def addresses(self, reference: ServiceReference) -> list[Address]:
        """Return every address that answers for a Service. Raises NotRoutable."""
        return self._resolver.addresses(reference.namespace, reference.name, reference.port)

    def at(self, service: ApiService, address: str, port: int, *, checked: bool = True) -> Target:
        """Return the target of an address behind an APIService. Raises BadAuthority."""
        assert service.service is not None, "a local APIService is not forwarded"
        insecure = service.insecure or not checked
        context = self._context(b"" if insecure else service.ca_bundle, insecure)
        return Target(address, port, context, service.service.server_name)

    async def ask(
        self, target: Target, path: str, user: User, headers: dict[str, str], *, timeout_s: float
    ) -> WholeAnswer:
        """GET a document. Raises OSError, TimeoutError."""
        sent = [*headers.items(), *identity_headers(user)]
        return await self._backends.pool(target).request("GET", path, sent, timeout_s=timeout_s)

    async def open(self, target: Target, path: str, user: User, headers: dict[str, str]) -> StreamedAnswer:
        """GET a document of any size; the caller closes the answer. Raises OSError, TimeoutError."""
        sent = [*headers.items(), *identity_headers(user)]
        return await self._backends.pool(target).exchange("GET", path, sent, timeout_s=HEAD_TIMEOUT_S)

    async def close(self) -> None:
        await self._backends.close()

    def _context(self, ca_bundle: bytes, insecure: bool) -> ssl.SSLContext:
        context = self._contexts.pop((ca_bundle, insecure), None)
        if context is None:
            proxy = self._front_proxy
            pair = (proxy.certificate, proxy.key) if proxy is not None else (None, None)
            try:
                context = client_context(ca_bundle or None, *pair, verify=not insecure)
            except (ssl.SSLError, ValueError) as error:
                raise BadAuthority(f"spec.caBundle holds no certificates: {error}") from error
            if len(self._contexts) >= CONTEXTS_LIMIT:
                del self._contexts[next(iter(self._contexts))]
        self._contexts[ca_bundle, insecure] = context
        return context


def _unavailable() -> Response:
    return Response(503, b"service unavailable\n", _TEXT)
