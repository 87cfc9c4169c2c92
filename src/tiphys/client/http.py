"""The client over HTTP: any conforming API server, over TLS with a client certificate or a bearer token.

Decides nothing of its own; see interface.py for what callers get, calls.py for the calls, wire/http_client.py for
connections. A token file is read again every minute, because bound tokens are rotated in place.

Spec: Kubernetes "Organizing Cluster Access Using kubeconfig Files".
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tiphys.base.clock import Clock, Randomness, SystemClock
from tiphys.base.errors import TiphysError
from tiphys.client.calls import ApiCalls, error_of
from tiphys.wire.http_client import HttpPool, WholeAnswer
from tiphys.wire.tls import client_context

TOKEN_REFRESH_S = 60.0
TRIES = 10
"""Of a request that the server has no room for (API Priority and Fairness)."""
BUSY_LIMIT_S = 10.0
USER_AGENT = "tiphys"


class KubeconfigError(TiphysError):
    """A kubeconfig file cannot be used; the message says which part of it and why."""


class HttpClient(ApiCalls):
    """Implements `client.interface.Client`. `url` is the server's address, e.g. https://127.0.0.1:6443."""

    def __init__(
        self,
        url: str,
        ssl_context: ssl.SSLContext | None = None,
        *,
        token: str = "",
        token_path: str | os.PathLike[str] | None = None,
        user_agent: str = USER_AGENT,
        server_name: str = "",
        connections: int = 64,
        randomness: Randomness | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(randomness)
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if not parts.hostname or parts.scheme not in ("http", "https") or secure != (ssl_context is not None):
            raise ValueError(f"{url!r} is not the https URL of a server (http only without a TLS context)")
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        port = parts.port or (443 if secure else 80)
        self.pool = HttpPool(parts.hostname, port, ssl_context, server_name=server_name, connections=connections)
        """For what is not an API call (upgrades); most callers do not need it."""
        self._token = token
        self._token_path = Path(token_path) if token_path else None
        self._token_read_s = float("-inf")
        self._user_agent = user_agent
        self._clock = clock if clock is not None else SystemClock()

    @classmethod
    def from_kubeconfig(
        cls, path: str | os.PathLike[str], *, context: str = "", user_agent: str = USER_AGENT
    ) -> HttpClient:
        """Return a client of a kubeconfig's current (or the named) context. Raises KubeconfigError and OSError."""
        import yaml

        file = Path(path)
        config = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(config, dict):
            raise KubeconfigError(f"{file} is not a kubeconfig file")
        chosen = _named(file, config, "contexts", "context", context or str(config.get("current-context") or ""))
        cluster = _named(file, config, "clusters", "cluster", str(chosen.get("cluster") or ""))
        user = _named(file, config, "users", "user", str(chosen.get("user") or "")) if chosen.get("user") else {}
        if "exec" in user or "auth-provider" in user:
            raise KubeconfigError(f"{file}: credential plugins are not supported; use a token or a client certificate")
        url = str(cluster.get("server") or "")
        tls_context = _tls_context(file.parent, cluster, user) if url.startswith("https") else None
        token_file = user.get("tokenFile")
        return cls(
            url,
            tls_context,
            token=str(user.get("token") or ""),
            token_path=file.parent / str(token_file) if token_file else None,
            user_agent=user_agent,
            server_name=str(cluster.get("tls-server-name") or ""),
        )

    async def close(self) -> None:
        await self.pool.close()

    def headers(self, content_type: str = "") -> dict[str, str]:
        """Return the headers of a request, credentials included."""
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        token = self._current_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if content_type:
            headers["Content-Type"] = content_type
        return headers

    def _current_token(self) -> str:
        if self._token_path is not None:
            now_s = self._clock.monotonic_s()
            if now_s - self._token_read_s > TOKEN_REFRESH_S:
                try:
                    self._token = self._token_path.read_text().strip()
                    self._token_read_s = now_s
                except OSError:
                    if not self._token:
                        raise
        return self._token

    async def _send(
        self, method: str, path: str, query: str, body: bytes | None, content_type: str, timeout_s: float
    ) -> bytes:
        target = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        headers = self.headers(content_type if body is not None else "")
        for _ in range(TRIES):
            answer = await self.pool.request(method, target, headers, body, timeout_s=timeout_s)
            if not _is_busy(answer):
                break
            await asyncio.sleep(min(float(answer.headers["retry-after"]), BUSY_LIMIT_S))
        if answer.status >= 300:
            raise error_of(answer.status, answer.body)
        return answer.body

    async def _open_watch(self, path: str, query: str) -> AsyncGenerator[bytes, None]:
        answer = await self.pool.stream("GET", f"{self._prefix}{path}?{query}", self.headers())
        try:
            if answer.status >= 300:
                raise error_of(answer.status, await answer.read_all())
            while data := await answer.read():
                yield data
        finally:
            answer.close()


def _is_busy(answer: WholeAnswer) -> bool:
    """Return whether the server let nothing in and says when to come again; a 429 with a Status is about an object."""
    return answer.status == 429 and answer.headers.get("retry-after", "").isdecimal() and answer.body[:1] != b"{"


def _named(file: Path, config: Mapping[str, Any], table: str, field: str, name: str) -> Mapping[str, Any]:
    for entry in config.get(table) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(field), dict):
            found: Mapping[str, Any] = entry[field]
            return found
    raise KubeconfigError(f"{file} has no {field} named {name!r}")


def _tls_context(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    ca = _material(folder, cluster, "certificate-authority")
    certificate = _material(folder, user, "client-certificate")
    key = _material(folder, user, "client-key")
    verify = not cluster.get("insecure-skip-tls-verify")
    if certificate is None or key is None:
        return client_context(ca, verify=verify)
    import tempfile

    # The TLS library reads certificates from files only: private ones, for as long as it takes.
    with tempfile.TemporaryDirectory(prefix="tiphys-") as directory:
        paths = Path(directory, "tls.crt"), Path(directory, "tls.key")
        for path, data in zip(paths, (certificate, key), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(data)
        return client_context(ca, *paths, verify=verify)


def _material(folder: Path, source: Mapping[str, Any], field: str) -> bytes | None:
    data = source.get(f"{field}-data")
    if data:
        return base64.b64decode(str(data))
    path = source.get(field)
    return (folder / str(path)).read_bytes() if path else None
