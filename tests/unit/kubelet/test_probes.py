"""Probe tallies, and probes over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tiphys.api.views.pod import HTTPGetAction, HTTPHeader, Probe
from tiphys.kubelet.grpchealth import check_health, judge
from tiphys.kubelet.probehandler import ProbeResult, SocketProbes, exec_timeout
from tiphys.kubelet.probing import count_result, first_tally, gave_up

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Serve on a free port; at the end wait until every connection is closed."""
    idle = asyncio.Event()
    idle.set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle.clear()
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
            idle.set()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await asyncio.sleep(0)
        await idle.wait()
        server.close()
        await server.wait_closed()


def answering(*heads: str, seen: list[bytes] | None = None) -> Serve:
    """Return a server that gives each connection the next answer."""
    left = list(heads)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        head = left.pop(0) if len(left) > 1 else left[0]
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        await writer.drain()
        writer.close()

    return serve


async def get(port: int, path: str = "/", timeout_s: float = 2.0, **more: object) -> ProbeResult:
    return await SocketProbes().http(HTTPGetAction(path=path, **more), "127.0.0.1", port, timeout_s)  # type: ignore[arg-type]


def test_verdicts_change_only_at_their_thresholds() -> None:
    probe = Probe(failure_threshold=3, success_threshold=2)
    tally = first_tally("readiness")
    verdicts = []
    for success in (True, True, False, False, True, False, False, False):
        tally = count_result(tally, probe, success)
        verdicts.append(tally.verdict)
    assert verdicts == [False, True, True, True, True, True, True, False]
    assert gave_up(tally, probe)
    assert first_tally("liveness").verdict


@pytest.mark.parametrize(
    ("head", "success", "output"),
    [
        ("HTTP/1.1 200 OK", True, ""),
        ("HTTP/1.1 399 Odd", True, ""),
        ("HTTP/1.1 500 No\nContent-Length: 0", False, "HTTP probe failed with statuscode: 500"),
        ("HTTP/1.1 404 No\nContent-Length: 0", False, "HTTP probe failed with statuscode: 404"),
    ],
)
async def test_http_status_decides(head: str, success: bool, output: str) -> None:
    async with listening(answering(head)) as port:
        result = await get(port)
        assert (result.success, result.output) == (success, output)


async def test_http_headers_and_redirects() -> None:
    seen: list[bytes] = []
    redirect = "HTTP/1.1 302 Found\nLocation: /next?q=1"
    async with listening(answering(redirect, "HTTP/1.1 200 OK", seen=seen)) as port:
        result = await get(port, "/a b", http_headers=(HTTPHeader(name="host", value="example.com"),))
        assert result == ProbeResult(True)
    assert seen[0].startswith(b"GET /a%20b HTTP/1.1\r\nHost: example.com\r\nUser-Agent: kube-probe/1.37\r\n")
    assert seen[1].startswith(b"GET /next?q=1 HTTP/1.1\r\n")
    async with listening(answering("HTTP/1.1 302 Found\nLocation: http://other.example/")) as port:
        result = await get(port)
        assert result.success and result.warning and result.output.startswith("Probe terminated redirects")


async def test_connections_that_fail_are_worded_as_clients_know_them() -> None:
    async with listening(answering("HTTP/1.1 200 OK")) as port:
        pass
    refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert await get(port) == ProbeResult(False, f'Get "http://127.0.0.1:{port}/": {refused}')
    assert await SocketProbes().tcp("127.0.0.1", port, 1.0) == ProbeResult(False, refused)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(silent) as port:
        result = await get(port, timeout_s=0.05)
        assert result.output == (
            f'Get "http://127.0.0.1:{port}/": context deadline exceeded '
            "(Client.Timeout exceeded while awaiting headers)"
        )
        assert (await SocketProbes().tcp("127.0.0.1", port, 1.0)).success


def test_exec_timeouts() -> None:
    assert exec_timeout(["sh", "-c", "sleep 9"], 1) == 'command timed out: "sh -c sleep 9" timed out after 1s'


async def test_grpc_health_over_http2() -> None:
    import h2.config
    import h2.connection
    import h2.events

    status = b"\x08\x01"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        while data := await reader.read(4096):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    connection.send_data(event.stream_id, b"\x00" + len(status).to_bytes(4, "big") + status)
                    connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    async with listening(serve) as port:
        assert (await check_health("127.0.0.1", port, "db", 2.0, "kube-probe/1.37")).success
        status = b"\x08\x02"
        result = await check_health("127.0.0.1", port, "", 2.0, "kube-probe/1.37")
        assert result == ProbeResult(False, 'service unhealthy (responded with "NOT_SERVING")')
    result = await check_health("127.0.0.1", port, "", 0.05, "kube-probe/1.37")
    assert result.output.startswith(f'timeout: failed to connect service "127.0.0.1:{port}" within 0s')
    assert "does not implement the grpc health protocol" in judge(12, "no", b"", "a", 1).output
