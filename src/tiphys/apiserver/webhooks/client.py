"""Calls of webhooks over HTTPS: a `clientConfig` and bytes in, the answer's JSON or a `CallFailed` out.

Decides which address is dialled, which certificate is believed, which connection is reused and how a failure is told.
Used for admission and for the conversion of custom resources; extension API servers are dialled through `Dialer`.
Invariants: every call ends within its timeout; an answer is never longer than `ANSWER_LIMIT_BYTES`; nothing is sent to
a server whose certificate was not verified for the name that is called.

Failures are worded as Go programs word them, because tests, dashboards and people look for these texts.
Spec: Kubernetes documentation, "Dynamic Admission Control", "Contacting the webhook"; "Versions in
CustomResourceDefinitions", "Webhook conversion".
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from tiphys.api.causes import go_quote
from tiphys.api.kind import JsonObject
from tiphys.apiserver.endpoints import NOBODY_THERE, Address, NotRoutable, ServiceResolver
from tiphys.apiserver.webhooks.certificates import explain
from tiphys.apiserver.webhooks.failures import CERTIFICATE, describe_failure, describe_status
from tiphys.apiserver.webhooks.loopback import ask_self, is_own
from tiphys.base.errors import TiphysError
from tiphys.wire.http_client import HttpPool, WholeAnswer
from tiphys.wire.message import Handler

ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
POOLS = 128
"""Servers whose connections are kept; the one unused for longest goes first."""
DEFAULT_PORT = 443
_HEADERS = (
    ("user-agent", "kube-apiserver-admission"),
    ("accept", "application/json, */*"),
    ("content-type", "application/json"),
)
NO_NETWORK = "this API server runs in a simulation without a network; it reaches no webhook"


class CallFailed(TiphysError):
    """A webhook could not be asked, or gave no usable answer. The text is what follows `failed to call webhook: `."""

    timed_out = False
    """It did not answer in time."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where a call goes: candidates to dial, and the name that the certificate and the Host header carry."""

    addresses: Sequence[Address]
    server_name: str
    authority: str
    """host:port as the URL has it."""
    path: str
    ca: bytes
    """PEM; b"" for the machine's own authorities."""

    @property
    def url(self) -> str:
        return f"https://{self.authority}{self.path}"


class Dialer:
    """Pools of verified TLS connections, by address, name and authority. For one event loop."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Address, str, bytes], HttpPool] = {}
        self._contexts: dict[bytes, ssl.SSLContext] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def pool(self, address: Address, server_name: str, ca: bytes) -> HttpPool:
        """Return the pool of connections to an address. Raises CallFailed when the authority cannot be read."""
        key = (address, server_name, ca)
        pool = self._pools.pop(key, None)
        if pool is None:
            if len(self._pools) >= POOLS:
                self._forget(next(iter(self._pools)))
            pool = HttpPool(*address, self._context(ca), server_name=server_name)
        self._pools[key] = pool  # the last one is the one used last
        return pool

    def _context(self, ca: bytes) -> ssl.SSLContext:
        context = self._contexts.get(ca)
        if context is None:
            if len(self._contexts) >= POOLS:
                self._contexts.clear()
            context = self._contexts[ca] = trusting(ca)
        return context

    def _forget(self, key: tuple[Address, str, bytes]) -> None:
        task = asyncio.ensure_future(self._pools.pop(key).close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all connections; calls under way fail. Idempotent."""
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()


def trusting(ca: bytes) -> ssl.SSLContext:
    """Return a client context that believes certificates of this authority (PEM), or of the machine's for b"".

    As in Go, any certificate in the bundle is believed, be it no authority's own; a common name is no server name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not ca:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CallFailed("unable to load root certificates: unable to parse bytes as PEM block") from error
    return context


class WebhookClient:
    """See the module's docstring. `resolver` None: there is no network, every call fails and says so."""

    def __init__(self, resolver: ServiceResolver | None, dialer: Dialer | None = None) -> None:
        self._resolver = resolver
        self._dialer = dialer or Dialer()
        self._turn = 0
        self.loopback: Handler | None = None
        """The API server itself, as a webhook that an extension server behind it answers: `kubernetes.default.svc`."""

    async def post(self, config: Mapping[str, Any], body: bytes, timeout_s: float) -> JsonObject:
        """Send JSON to a webhook (`config` is a clientConfig) and return the JSON object of its answer.

        Raises CallFailed for everything that goes wrong; cancellation closes the connection.
        """
        shown = ""
        try:
            async with asyncio.timeout(timeout_s):
                authority, path = _named(config)
                target = f"{path}?timeout={_rounded_up(timeout_s)}s"
                shown = f"https://{authority}{target}"
                if self.loopback is not None and is_own(config):
                    answer = await ask_self(self.loopback, target, dict(_HEADERS), body, ANSWER_LIMIT_BYTES)
                else:
                    answer = await self._exchange(self.endpoint(config), target, shown, body, timeout_s)
        except TimeoutError:
            late = CallFailed(f"Post {go_quote(shown)}: context deadline exceeded")
            late.timed_out = True
            raise late from None
        except (NotRoutable, ConnectionError) as error:
            raise CallFailed(f"Post {go_quote(shown)}: {error}") from error
        return _decoded(answer)

    def endpoint(self, config: Mapping[str, Any]) -> Endpoint:
        """Return where a clientConfig leads to now. Raises NotRoutable, CallFailed."""
        if self._resolver is None:
            raise CallFailed(NO_NETWORK)
        ca = _pem(config.get("caBundle"))
        authority, path = _named(config)
        service = config.get("service")
        if service is None:
            parts = urlsplit(str(config.get("url") or ""))
            host = parts.hostname or ""
            return Endpoint([(host, parts.port or DEFAULT_PORT)], host, authority, path, ca)
        namespace, name, port = service["namespace"], service["name"], service.get("port") or DEFAULT_PORT
        found = self._resolver.addresses(namespace, name, port)
        self._turn += 1
        first = self._turn % len(found)
        return Endpoint(found[first:] + found[:first], f"{name}.{namespace}.svc", authority, path, ca)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._dialer.close()

    async def _exchange(
        self, endpoint: Endpoint, target: str, shown: str, body: bytes, timeout_s: float
    ) -> WholeAnswer:
        """Ask the first address that can be reached: endpoints that went away a moment ago are passed over."""
        headers = [("Host", endpoint.authority), *_HEADERS]
        for left, address in reversed(list(enumerate(reversed(endpoint.addresses)))):
            pool = self._dialer.pool(address, endpoint.server_name, endpoint.ca)
            try:
                return await pool.request(
                    "POST",
                    target,
                    headers,
                    body,
                    timeout_s=timeout_s,
                    repeatable=True,
                    limit_bytes=ANSWER_LIMIT_BYTES,
                )
            except OSError as error:
                if error.errno in NOBODY_THERE and left:
                    continue
                if isinstance(error, TimeoutError) and error.errno is None:
                    raise
                text = describe_failure(error, address)
                if isinstance(error, ssl.SSLCertVerificationError):
                    told = await explain(error, address, endpoint.server_name)
                    text = f"{CERTIFICATE}{told}" if told else text
                raise CallFailed(f"Post {go_quote(shown)}: {text}") from error
        raise AssertionError("unreachable: an endpoint has at least one address")


def _named(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return host:port and path as the URL of a clientConfig has them."""
    service = config.get("service")
    if service is not None:
        port = service.get("port") or DEFAULT_PORT
        path = str(service.get("path") or "")
        return f"{service['name']}.{service['namespace']}.svc:{port}", f"/{path.lstrip('/')}"
    parts = urlsplit(str(config.get("url") or ""))
    return parts.netloc, parts.path or "/"


def _pem(bundle: Any) -> bytes:
    if not bundle:
        return b""
    try:
        return b64decode(bundle)
    except ValueError as error:
        raise CallFailed(f"unable to load root certificates: caBundle is not base64: {error}") from error


def _rounded_up(timeout_s: float) -> int:
    return max(1, -int(-timeout_s // 1))


def _decoded(answer: WholeAnswer) -> JsonObject:
    """Return the object of a successful answer. Raises CallFailed for any other."""
    if not 200 <= answer.status <= 206:
        raise CallFailed(describe_status(answer))
    if not answer.body:
        kind = answer.headers.get("content-type", "")
        raise CallFailed(f"0-length response with status code: {answer.status} and content type: {kind}")
    try:
        decoded = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        from tiphys.api.gojson import go_syntax_error

        raise CallFailed(
            f"couldn't get version/kind; json parse error: {go_syntax_error(answer.body) or error}"
        ) from error
    if not isinstance(decoded, dict):
        raise CallFailed("couldn't get version/kind; json parse error: json: cannot unmarshal into an object")
    if not decoded.get("kind") or not decoded.get("apiVersion"):
        shown = answer.body[:1024].decode("utf-8", "replace")
        missing = "Kind" if not decoded.get("kind") else "apiVersion"
        raise CallFailed(f"Object '{missing}' is missing in '{shown}'")
    return decoded
