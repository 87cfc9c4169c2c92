"""Carry out one probe or hook: exec in the container, or HTTP, TCP and gRPC from the node.

`NetworkProbes` is the seam for what needs a network: `SocketProbes` uses sockets, `AgreeableProbes` says yes (simulated
pods listen on nothing). Messages are those that clients see in Unhealthy events.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit

from tiphys.api.views.pod import Container, HTTPGetAction
from tiphys.kubelet.plan import format_duration
from tiphys.kubelet.pod import Specced

MAX_BODY = 10 * 1024
MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`success` None: the probe itself could not be carried out."""

    success: bool | None
    output: str = ""
    warning: bool = False


class NetworkProbes(Protocol):
    async def http(self, action: HTTPGetAction, address: str, port: int, timeout_s: float) -> ProbeResult: ...

    async def tcp(self, address: str, port: int, timeout_s: float) -> ProbeResult: ...

    async def grpc(self, address: str, port: int, service: str, timeout_s: float) -> ProbeResult: ...


class AgreeableProbes:
    """Every probe succeeds, at once."""

    async def http(self, action: HTTPGetAction, address: str, port: int, timeout_s: float) -> ProbeResult:
        return ProbeResult(True)

    async def tcp(self, address: str, port: int, timeout_s: float) -> ProbeResult:
        return ProbeResult(True)

    async def grpc(self, address: str, port: int, service: str, timeout_s: float) -> ProbeResult:
        return ProbeResult(True)


def resolve_port(container: Specced, port: int | str | None) -> int | None:
    """Return the number of a port given by number, digits or name."""
    if isinstance(port, int):
        return port if 0 < port < 65536 else None
    if port and port.isdigit():
        return int(port)
    ports = container.ports if isinstance(container, Container) else ()
    return next((p.container_port for p in ports if p.name == port), None)


def host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dial_error(error: OSError, address: str, port: int) -> str:
    """Return the text of a connection that failed."""
    where = f"dial tcp {host_port(address, port)}"
    if isinstance(error, TimeoutError):
        return f"{where}: i/o timeout"
    if isinstance(error, ConnectionRefusedError):
        return f"{where}: connect: connection refused"
    text = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{where}: connect: {text}"


class SocketProbes:
    """Probes over real sockets. TLS certificates are not verified, as probes of pods never are."""

    def __init__(self, version: str = "1.37") -> None:
        self._agent = f"kube-probe/{version}"
        self._tls: ssl.SSLContext | None = None

    async def tcp(self, address: str, port: int, timeout_s: float) -> ProbeResult:
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            return ProbeResult(False, dial_error(error, address, port))
        writer.close()
        return ProbeResult(True)

    async def grpc(self, address: str, port: int, service: str, timeout_s: float) -> ProbeResult:
        from tiphys.kubelet.grpchealth import check_health

        return await check_health(address, port, service, timeout_s, self._agent)

    async def http(self, action: HTTPGetAction, address: str, port: int, timeout_s: float) -> ProbeResult:
        scheme = (action.scheme or "HTTP").lower()
        path = action.path or "/"
        url = f"{scheme}://{host_port(address, port)}{path if path.startswith('/') else '/' + path}"
        headers = {h.name: h.value for h in action.http_headers}
        try:
            async with asyncio.timeout(timeout_s):
                return await self._follow(url, headers)
        except TimeoutError:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return ProbeResult(False, f'Get "{url}": {why}')
        except ssl.SSLError as error:
            return ProbeResult(False, f'Get "{url}": tls: {error.reason or error}')
        except asyncio.IncompleteReadError:
            return ProbeResult(False, f'Get "{url}": EOF')
        except OSError as error:
            return ProbeResult(False, f'Get "{url}": {dial_error(error, address, port)}')
        except ValueError as error:
            return ProbeResult(False, f'Get "{url}": {error}')

    async def _follow(self, url: str, headers: dict[str, str]) -> ProbeResult:
        first_host = urlsplit(url).hostname
        for _ in range(MAX_REDIRECTS):
            status, location, body = await self._get(url, headers)
            if not (300 <= status < 400 and location and status not in (300, 304, 305, 306)):
                break
            target = _join(url, location)
            if urlsplit(target).hostname != first_host:
                return ProbeResult(True, f"Probe terminated redirects, Response body: {body}", warning=True)
            url = target
        else:
            return ProbeResult(False, f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')
        if 200 <= status < 400:
            return ProbeResult(True, body)
        return ProbeResult(False, f"HTTP probe failed with statuscode: {status}")

    async def _get(self, url: str, headers: dict[str, str]) -> tuple[int, str, str]:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        assert parts.hostname is not None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=self._unverified() if secure else None, limit=256 * 1024
        )
        try:
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~") + (f"?{parts.query}" if parts.query else "")
            wanted = {"Host": parts.netloc, "User-Agent": self._agent, "Accept": "*/*", "Connection": "close"}
            for name, value in headers.items():
                same = next((known for known in wanted if known.lower() == name.lower()), name)
                if value or same not in ("Accept", "User-Agent"):
                    wanted[same] = value
                else:
                    del wanted[same]
            lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items()), "", ""]
            writer.write("\r\n".join(lines).encode("utf-8"))
            head = await reader.readuntil(b"\r\n\r\n")
            status, location = _parse_head(head)
            body = b"" if 300 > status >= 200 else await reader.read(MAX_BODY)
            return status, location, body.decode(errors="replace")
        except asyncio.LimitOverrunError as error:
            raise ValueError("net/http: HTTP/1.x transport connection broken: headers too large") from error
        finally:
            writer.close()

    def _unverified(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        return self._tls


def _parse_head(head: bytes) -> tuple[int, str]:
    """Return (status, Location). Raises ValueError when it is not HTTP."""
    lines = head.decode("latin-1").split("\r\n")
    match = re.match(r"HTTP/\d(?:\.\d)? (\d{3})", lines[0])
    if match is None:
        raise ValueError(f'net/http: HTTP/1.x transport connection broken: malformed HTTP response "{lines[0]}"')
    location = next((ln.partition(":")[2].strip() for ln in lines[1:] if ln.lower().startswith("location:")), "")
    return int(match[1]), location


def _join(base: str, location: str) -> str:
    from urllib.parse import urljoin

    return urljoin(base, location)


def exec_timeout(command: Sequence[str], timeout_s: float) -> str:
    """Return the text of an exec probe that took too long."""
    return f'command timed out: "{" ".join(command)}" timed out after {format_duration(timeout_s)}'
