"""Conversations with the HTTP server over real sockets: what is sent, what must come back."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.base.errors import not_found
from tiphys.wire import tls
from tiphys.wire.message import Answer, Connection, Request, Response, Sink, Stream, Upgrade
from tiphys.wire.server import HttpServer, Limits

Reader = asyncio.StreamReader
HOST = b"Host: x\r\n"


async def echo(request: Request) -> Answer:
    """Answer with what was understood of the request; some paths do more."""
    if request.path == "/missing":
        raise not_found("apps", "deployments", "web")
    if request.path == "/defect":
        raise KeyError("defect")
    if request.path == "/slow":
        async with asyncio.timeout(5):
            await asyncio.sleep(0.01)
    if request.path == "/big":
        return Response(200, b"0123456789" * 20_000)
    if request.path == "/parts":
        return Response(200, [b"x" * 1000] * 2000)
    told = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "body": request.body.decode("latin-1"),
        "user": request.peer.common_name,
        "groups": request.peer.organizations,
        "headers": dict(request.headers),
    }
    return Response(200, json.dumps(told).encode())


@asynccontextmanager
async def serving(
    handler: Callable[[Request], object] = echo, limits: Limits | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(handler, limits=limits)  # type: ignore[arg-type]
    port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.stop(0)


async def read_answer(reader: Reader, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    status = int(head[0].split()[1])
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
    if head_only or status == 101:
        return status, headers, b""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int(await reader.readline(), 16)
            body += (await reader.readexactly(size + 2))[:size]
            if not size:
                return status, headers, body
    if "content-length" in headers:
        return status, headers, await reader.readexactly(int(headers["content-length"]))
    return status, headers, b""


async def converse(port: int, data: bytes, answers: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return [await asyncio.wait_for(read_answer(reader), 5) for _ in range(answers)]
    finally:
        writer.close()
        await writer.wait_closed()


async def read_all(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def test_a_get_reaches_the_handler_decoded() -> None:
    async with serving() as (_, port):
        data = b"GET /api/v1/a%2Fb%20c?x=1&x=2&y HTTP/1.1\r\n" + HOST + b"X-Group: a\r\nx-group: b\r\n\r\n"
        [(status, headers, body)] = await converse(port, data)
    told = json.loads(body)
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert "date" in headers
    assert told["path"] == "/api/v1/a/b c"
    assert told["query"] == {"x": ["1", "2"], "y": [""]}
    assert told["headers"]["x-group"] == "a, b"


async def test_a_repeated_request_is_understood_as_the_first() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(5):
            writer.write(b"GET /n/%d?q=%d HTTP/1.1\r\n" % (number, number) + HOST + b"Accept: a\r\n\r\n")
            told = json.loads((await read_answer(reader))[2])
            assert (told["path"], told["query"]) == (f"/n/{number}", {"q": [str(number)]})
            assert told["headers"] == {"host": "x", "accept": "a"}
        writer.write(b"GET /other HTTP/1.1\r\n" + HOST + b"Accept: b\r\n\r\n")
        assert json.loads((await read_answer(reader))[2])["headers"]["accept"] == "b"
        writer.write(b"POST /other HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi")
        assert json.loads((await read_answer(reader))[2])["body"] == "hi"
        writer.write(b"GET /n/9 HTTP/1.1\r\n" + HOST + b"Accept: b\r\n\r\n")
        assert json.loads((await read_answer(reader))[2])["path"] == "/n/9"
        writer.close()


async def test_pipelined_requests_are_answered_in_order_and_a_slow_one_holds_the_rest() -> None:
    paths = [b"/slow", b"/1", b"/slow", *[b"/%d" % n for n in range(100)], b"/missing"]
    async with serving() as (_, port):
        data = b"".join(b"GET %b HTTP/1.1\r\n" % path + HOST + b"\r\n" for path in paths)
        answers = await converse(port, data, len(paths))
    assert [json.loads(body).get("path") for _, _, body in answers[:-1]] == [path.decode() for path in paths[:-1]]
    assert answers[-1][0] == 404


async def test_bodies_come_whole_with_a_length_in_chunks_and_after_100_continue() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0)
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        assert json.loads((await read_answer(reader))[2])["body"] == "abcde"
        writer.write(b"PUT /b HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await read_answer(reader, head_only=True))[0] == 100
        writer.write(b"xyz")
        assert json.loads((await read_answer(reader))[2])["body"] == "xyz"
        writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_with_a_status(chunked: bool) -> None:
    async with serving(limits=Limits(body_bytes=1000)) as (_, port):
        if chunked:
            data = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5dc\r\n" + b"x" * 1500 + b"\r\n"
        else:
            data = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001
        [(status, headers, body)] = await converse(port, data)
    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(body)["message"] == "Request entity too large: limit is 1000"
    assert json.loads(body)["reason"] == "RequestEntityTooLarge"


async def test_too_large_headers_are_refused_even_when_they_never_end() -> None:
    async with serving(limits=Limits(header_bytes=2000)) as (_, port):
        [(status, _, _)] = await converse(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 3000 + b"\r\n\r\n")
        assert status == 431
        [(status, _, _)] = await converse(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 3000)
        assert status == 431


async def test_bytes_that_are_no_request_get_400_and_the_end() -> None:
    async with serving() as (_, port):
        for data in (b"nonsense\r\n\r\n", b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            [(status, headers, body)] = await converse(port, data)
            assert status == 400
            assert headers["connection"] == "close"
            assert body.startswith(b"400 Bad Request")


async def test_failures_become_statuses_and_only_defects_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (_, port):
        with caplog.at_level(logging.ERROR):
            [(status, _, body)] = await converse(port, b"GET /missing HTTP/1.1\r\n" + HOST + b"\r\n")
            assert status == 404
            assert json.loads(body)["message"] == 'deployments.apps "web" not found'
            assert not caplog.records
            [(status, _, body)] = await converse(port, b"GET /defect HTTP/1.1\r\n" + HOST + b"\r\n")
            assert status == 500
            assert json.loads(body)["reason"] == "InternalError"
            assert len(caplog.records) == 1


async def test_head_has_the_length_and_no_body_and_close_closes() -> None:
    async with serving() as (_, port):
        answer = await read_all(port, b"HEAD /big HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert b"Content-Length: 200000\r\n" in answer
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_http_1_0_is_closed_unless_it_asks_otherwise() -> None:
    async with serving() as (_, port):
        assert (await read_all(port, b"GET /a HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_large_answers_are_compressed_for_those_who_accept_it() -> None:
    async with serving() as (_, port):
        [(_, headers, body)] = await converse(port, b"GET /big HTTP/1.1\r\n" + HOST + b"Accept-Encoding: gzip\r\n\r\n")
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body) == b"0123456789" * 20_000
        [(_, headers, body)] = await converse(port, b"GET /parts HTTP/1.1\r\n" + HOST + b"\r\n")
        assert "content-encoding" not in headers
        assert len(body) == 2_000_000


async def test_a_stream_is_sent_as_it_comes_and_told_when_the_peer_leaves() -> None:
    sinks: list[Sink] = []
    stopped = asyncio.Event()

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            sink.send(b"first\n")
            return stopped.set

        return Stream(start) if request.path == "/watch" else Response(200, b"after")

    async with serving(handler) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await read_answer(reader, head_only=True))[1]["transfer-encoding"] == "chunked"
        assert await reader.readexactly(11) == b"6\r\nfirst\n\r\n"
        sinks[0].send(b"a")
        sinks[0].send(b"b")
        assert await reader.readexactly(7) == b"2\r\nab\r\n"
        writer.write(b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
        sinks[0].close()
        sinks[0].close()
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        assert stopped.is_set()
        assert (await read_answer(reader))[2] == b"after"
        stopped.clear()
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"first\n")
        writer.close()
        await asyncio.wait_for(stopped.wait(), 5)
        sinks[1].send(b"into the void")
        assert sinks[1].pending_bytes() == 0


async def test_a_slow_reader_is_told_to_the_sender_and_hurts_nobody_else() -> None:
    sinks: list[Sink] = []

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            return lambda: None

        return Stream(start) if request.path == "/watch" else Response(200, b"quick")

    async with serving(handler) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(200):
            sinks[0].send(b"x" * 100_000)
            await asyncio.sleep(0)
        assert sinks[0].pending_bytes() > 5_000_000
        [(_, _, body)] = await converse(port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert body == b"quick"
        sinks[0].close()
        whole = await asyncio.wait_for(_read_chunks(reader), 10)
        assert whole == 20_000_000
        writer.close()


async def test_a_sender_can_wait_until_its_client_has_taken_what_was_sent() -> None:
    sinks: list[Sink] = []

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            return lambda: None

        return Stream(start)

    async with serving(handler) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        [sink] = sinks
        await asyncio.wait_for(sink.drain(), 5)

        async def send() -> int:
            most = 0
            for _ in range(100):
                sink.send(b"x" * 200_000)
                most = max(most, sink.pending_bytes())
                await sink.drain()
            sink.close()
            return most

        sending = asyncio.create_task(send())
        whole = await asyncio.wait_for(_read_chunks(reader), 10)
        assert whole == 20_000_000
        assert await sending < 1_000_000
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        sinks[1].send(b"x" * 20_000_000)
        waiting = asyncio.create_task(sinks[1].drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        writer.transport.abort()
        await asyncio.wait_for(waiting, 5)  # nobody will take it: the sender goes on and finds the stream ended


async def test_many_streams_are_written_over_several_turns_and_each_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiphys.wire.server.FLUSHED_A_TURN", 2)
    sinks: list[Sink] = []

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            return lambda: None

        return Stream(start)

    async with serving(handler) as (_, port):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(7)]
        for reader, writer in streams:
            writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
            await reader.readuntil(b"\r\n\r\n")
        for number in range(5):
            for sink in sinks:
                sink.send(b"%d" % number)
            await asyncio.sleep(0)
        for sink in sinks:
            sink.close()
        for reader, writer in streams:
            text = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
            assert b"".join(text.split(b"\r\n")[1::2]).startswith(b"01234")
            writer.close()


async def test_a_client_that_leaves_the_end_of_a_stream_untaken_is_cut_off_in_time() -> None:
    sinks: list[Sink] = []

    async def handler(request: Request) -> Answer:
        def start(sink: Sink) -> Callable[[], None]:
            sinks.append(sink)
            return lambda: None

        return Stream(start)

    async with serving(handler, Limits(send_timeout_s=3)) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        sinks[0].send(b"x" * 20_000_000)
        await asyncio.sleep(0)
        [connection] = server.connections
        connection.check_deadline(server.tick + 100)
        assert not connection._transport.is_closing(), "the stream goes on: how long is its own business"
        sinks[0].close()
        connection.check_deadline(server.tick + 2)
        assert not connection._transport.is_closing()
        connection.check_deadline(server.tick + 100)
        assert connection._transport.is_closing()
        writer.close()


async def test_a_large_answer_waits_for_a_slow_reader_without_holding_others_or_memory() -> None:
    size = 30_000_000

    async def handler(request: Request) -> Answer:
        return Response(200, [b"x" * 1000, b"y" * (size - 1000)] if request.path == "/large" else b"small")

    async with serving(handler) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\nGET /next HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        [(_, _, body)] = await converse(port, b"GET /other HTTP/1.1\r\n" + HOST + b"\r\n")
        assert body == b"small"
        [slow] = [c for c in server.connections if c.writing_paused]
        assert slow._transport.get_write_buffer_size() < 5_000_000
        body = await reader.readexactly(size)
        assert (body.count(b"x"), body.count(b"y")) == (1000, size - 1000)
        assert (await read_answer(reader))[2] == b"small"
        writer.close()


async def test_a_client_that_leaves_in_the_middle_of_a_large_answer_leaves_nothing() -> None:
    async def handler(request: Request) -> Answer:
        return Response(200, b"x" * 30_000_000)

    async with serving(handler) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
        await server.stop(5.0)
        assert not server.connections


async def _read_chunks(reader: Reader) -> int:
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    return total


async def test_an_upgrade_hands_over_the_connection_with_what_was_read() -> None:
    async def handler(request: Request) -> Answer:
        async def run(connection: Connection) -> None:
            while data := await connection.read():
                await connection.write(data.upper())

        return Upgrade("ECHO/1", run, headers=[("X-More", "yes")])

    async with serving(handler) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /up HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: ECHO/1\r\n\r\nearly")
        status, headers, _ = await read_answer(reader)
        assert (status, headers["upgrade"], headers["x-more"]) == (101, "ECHO/1", "yes")
        assert await reader.readexactly(5) == b"EARLY"
        writer.write(b"late")
        assert await reader.readexactly(4) == b"LATE"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_the_client_leaving_cancels_its_handler() -> None:
    cancelled = asyncio.Event()
    entered = asyncio.Event()

    async def handler(request: Request) -> Answer:
        entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    async with serving(handler) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.wait_for(entered.wait(), 5)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_connection_that_sends_half_a_request_is_cut() -> None:
    async with serving(limits=Limits(header_timeout_s=3)) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHos")
        while not server.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for connection in list(server.connections):
            connection.check_deadline(server.tick + 3)
            connection.check_deadline(server.tick + 5)
        assert await asyncio.wait_for(_read_or_reset(reader), 5) == b""
        writer.close()


async def _read_or_reset(reader: Reader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_stop_lets_a_running_request_finish_and_ends_streams() -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Answer:
        if request.path == "/watch":
            return Stream(lambda sink: lambda: None)
        entered.set()
        await finish.wait()
        return Response(200, b"done")

    server = HttpServer(handler)
    port = await server.start("127.0.0.1", 0)
    watch = asyncio.create_task(read_all(port, b"GET /watch HTTP/1.1\r\n" + HOST + b"\r\n"))
    call = asyncio.create_task(read_all(port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))
    await asyncio.wait_for(entered.wait(), 5)
    while len(server.connections) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stop = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0)
    finish.set()
    await stop
    assert (await call).endswith(b"done")
    assert (await watch).endswith(b"0\r\n\r\n")


async def test_tls_with_a_client_certificate_tells_user_and_groups() -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        ca = tls.create_ca("test-ca")
        tls.issue(ca, "server", ip_addresses=["127.0.0.1"], server=True).write(folder / "s.crt", folder / "s.key")
        tls.issue(ca, "jane", ["dev", "ops"], client=True).write(folder / "c.crt", folder / "c.key")
        ca.write(folder / "ca.crt", folder / "ca.key")
        assert (folder / "s.key").stat().st_mode & 0o777 == 0o600
        context = tls.server_context(folder / "s.crt", folder / "s.key", folder / "ca.crt")
        server = HttpServer(echo, ssl_context=context)
        port = await server.start("127.0.0.1", 0)
        for client, user in (
            (tls.client_context(folder / "ca.crt", folder / "c.crt", folder / "c.key"), "jane"),
            (tls.client_context(ca.certificate), None),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            told = json.loads((await asyncio.wait_for(read_answer(reader), 5))[2])
            assert told["user"] == user
            assert told["groups"] == (["dev", "ops"] if user else [])
            writer.close()
            await writer.wait_closed()
        await server.stop(0)


REQUEST = b"POST /slow?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nAccept-Encoding: gzip\r\n\r\nabc"


@settings(max_examples=40, deadline=None)
@given(
    garbage=st.binary(max_size=60), start=st.integers(0, len(REQUEST)), length=st.integers(0, 20), seed=st.integers()
)
def test_no_bytes_make_the_server_raise(garbage: bytes, start: int, length: int, seed: int) -> None:
    """Damaged requests, cut into random pieces: afterwards the server still answers, and nothing was logged."""

    async def run() -> None:
        failures: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        data = REQUEST + REQUEST[:start] + garbage + REQUEST[start + length :] + REQUEST
        cuts = sorted(random.Random(seed).randint(0, len(data)) for _ in range(4))
        async with serving() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                writer.write(data[begin:end])
                await asyncio.sleep(0)
            assert (await asyncio.wait_for(read_answer(reader), 5))[0] == 200
            writer.close()
            [(status, _, _)] = await converse(port, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert status == 200
        assert not failures

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["stream", "upgrade"])
async def test_an_answer_that_comes_too_late_is_ended(kind: str) -> None:
    came, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> Answer:
        came.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass  # the client is gone, and the backend has answered in this very moment

        async def run(connection: Connection) -> None:
            assert await connection.read() == b""
            ended.set()

        return Stream(lambda sink: ended.set) if kind == "stream" else Upgrade("x", run)

    async with serving(handle) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.wait_for(came.wait(), 5)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)
