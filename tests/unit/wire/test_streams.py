"""Exec and port-forward sessions in all protocols, over real sockets, with a command that echoes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.wire.http_client import HttpPool
from tiphys.wire.message import Answer, Connection, Request, Upgrade
from tiphys.wire.server import HttpServer
from tiphys.wire.spdy import (
    DataReceived,
    GoneAway,
    SpdyError,
    SpdyFraming,
    StreamOpened,
    StreamReplied,
    StreamReset,
)
from tiphys.wire.streamclient import RemoteCommand, connect_spdy, connect_tunnel
from tiphys.wire.streams import RemoteCommandOptions, RemoteSession, upgrade_port_forward, upgrade_remote_command
from tiphys.wire.websocket import connect_websocket

SUCCESS = {"metadata": {}, "status": "Success"}


async def echo_command(session: RemoteSession) -> dict[str, Any] | None:
    """Echo stdin to stdout, count it on stderr, and fail with code 3 when asked to."""
    total = b""
    while data := await session.read_stdin():
        total += data
        await session.write(1, data)
    if session.options.tty:
        async for width, height in session.resizes():
            await session.write(1, b"%dx%d" % (width, height))
            break
    await session.write(2, b"%d bytes" % len(total))
    if total == b"raise":
        raise ValueError("a defect")
    if total == b"fail":
        causes = [{"reason": "ExitCode", "message": "3"}]
        return {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes},
                "message": "command terminated with non-zero exit code"}  # fmt: skip
    return None


async def echo_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data.upper())
    writer.write(b"bye")
    writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[HttpPool]:
    echoing: list[asyncio.StreamWriter] = []

    async def echo_and_note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.append(writer)
        await echo_port(reader, writer)

    echo = await asyncio.start_server(echo_and_note, "127.0.0.1", 0)
    echo_at = echo.sockets[0].getsockname()[1]

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port != 80:
            raise ConnectionRefusedError("connection refused")
        return await asyncio.open_connection("127.0.0.1", echo_at)

    async def handler(request: Request) -> Answer:
        if request.path == "/exec":
            options = RemoteCommandOptions(stdin=True, stdout=True, stderr=True, tty=bool(request.param("tty")))
            return upgrade_remote_command(request, options, echo_command)
        return upgrade_port_forward(request, connect, [int(port) for port in request.query.get("ports", [])])

    server = HttpServer(handler)
    pool = HttpPool("127.0.0.1", await server.start("127.0.0.1", 0))
    try:
        async with asyncio.timeout(20):
            yield pool
    finally:
        await pool.close()
        await server.stop(0)
        echo.close()
        await echo.wait_closed()
        for writer in echoing:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def gather(command: RemoteCommand) -> dict[int, bytes]:
    seen: dict[int, bytes] = {}
    async for stream, data in command.output():
        seen[stream] = seen.get(stream, b"") + data
    return seen


async def test_a_websocket_command_echoes_and_ends_with_a_status() -> None:
    async with serving() as pool:
        command = await RemoteCommand.open(pool, "/exec", {})
        await command.write_stdin(b"x" * 100_000)
        await command.write_stdin(b"y" * 100_000)
        await command.close_stdin()
        assert await gather(command) == {1: b"x" * 100_000 + b"y" * 100_000, 2: b"200000 bytes"}
        assert command.status() == SUCCESS
        await command.close()


async def test_failures_of_a_command_reach_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as pool:
        command = await RemoteCommand.open(pool, "/exec", {})
        await command.write_stdin(b"fail")
        await command.close_stdin()
        await gather(command)
        assert command.status()["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        await command.close()
        command = await RemoteCommand.open(pool, "/exec", {})
        await command.write_stdin(b"raise")
        await command.close_stdin()
        await gather(command)
        assert command.status()["reason"] == "InternalError"
        assert len(caplog.records) == 1
        await command.close()


async def test_a_terminal_tells_its_size() -> None:
    async with serving() as pool:
        command = await RemoteCommand.open(pool, "/exec?tty=1", {})
        await command.resize(132, 43)
        await command.close_stdin()
        assert await gather(command) == {1: b"132x43"}
        await command.close()


@pytest.mark.parametrize("protocol", ["base64.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io"])
async def test_old_websocket_protocols(protocol: str) -> None:
    async with serving() as pool:
        websocket, chosen, connection = await connect_websocket(pool, "/exec", {}, ["unknown", protocol])
        assert chosen == protocol
        is_base64 = "base64" in protocol
        await websocket.send(b"0" + base64.b64encode(b"hi") if is_base64 else b"\0hi", text=is_base64)
        while True:
            message = await websocket.receive()
            assert message is not None
            channel = message[0] - (ord("0") if is_base64 else 0)
            if channel == 1 and len(message) > 1:
                assert (base64.b64decode(message[1:]) if is_base64 else message[1:]) == b"hi"
                break
        await websocket.close()
        connection.close()


@pytest.mark.parametrize("version", ["v4.channel.k8s.io", "v2.channel.k8s.io", ""])
@pytest.mark.parametrize("text", [b"hello", b"fail"])
async def test_a_spdy_command_echoes_and_ends_with_a_status(version: str, text: bytes) -> None:
    async with serving() as pool:
        session, chosen, connection = await connect_spdy(pool, "/exec", {}, ["v9.unknown", version] if version else [])
        assert chosen == version
        running = asyncio.create_task(session.run())
        names = ("error", "stdin", "stdout", "stderr")
        streams = {name: await session.open_stream({"streamType": name}) for name in names}
        await streams["stdin"].write(text, fin=True)
        seen = {}
        for name in ("stdout", "stderr", "error"):
            seen[name] = b""
            while data := await streams[name].read():
                seen[name] += data
        assert (seen["stdout"], seen["stderr"]) == (text, b"%d bytes" % len(text))
        if version.startswith("v4"):
            assert json.loads(seen["error"])["status"] == ("Failure" if text == b"fail" else "Success")
        else:
            assert seen["error"] == (b"command terminated with non-zero exit code" if text == b"fail" else b"")
        connection.close()
        await running


async def test_protocols_that_nobody_speaks_are_refused() -> None:
    async with serving() as pool:
        with pytest.raises(ConnectionError, match="unable to negotiate protocol"):
            await connect_spdy(pool, "/exec", {}, ["v9.unknown"])
        with pytest.raises(ConnectionError, match="none of the WebSocket protocols"):
            await connect_websocket(pool, "/exec", {}, ["v9.unknown"])
        answer = await pool.request("POST", "/exec")
        assert (answer.status, json.loads(answer.body)["message"]) == (400, "Upgrade request required")


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_ports_are_forwarded_and_a_refused_one_hurts_no_other(tunnelled: bool) -> None:
    async with serving() as pool:
        if tunnelled:
            session, _, connection = await connect_tunnel(pool, "/forward", {})
        else:
            session, _, connection = await connect_spdy(pool, "/forward", {}, ["portforward.k8s.io"])
        running = asyncio.create_task(session.run())
        pairs = []
        for number, port in enumerate((80, 81, 80)):
            about = {"port": str(port), "requestID": str(number)}
            error = await session.open_stream({**about, "streamType": "error"})
            pairs.append((error, await session.open_stream({**about, "streamType": "data"})))
        for _, data in (pairs[0], pairs[2]):
            await data.write(b"hello" * 10_000, fin=True)
        assert await pairs[1][0].read() == b"error forwarding port 81: connection refused"
        for error, data in (pairs[0], pairs[2]):
            seen = b""
            while piece := await data.read():
                seen += piece
            assert seen == b"HELLO" * 10_000 + b"bye"
            assert await error.read() == b""
        connection.close()
        await running


async def test_ports_are_forwarded_over_websocket_channels() -> None:
    async with serving() as pool:
        websocket, _, connection = await connect_websocket(
            pool, "/forward?ports=80&ports=81", {}, ["v4.channel.k8s.io"]
        )
        seen: dict[int, bytes] = {}
        await websocket.send(b"\0hello")
        while seen.get(0, b"")[2:] != b"HELLO" or len(seen.get(3, b"")) < 3:
            message = await websocket.receive()
            assert message is not None
            seen[message[0]] = seen.get(message[0], b"") + message[1:]
        assert (seen[0][:2], seen[2]) == (b"\x50\x00", b"\x51\x00")
        assert seen[3][2:] == b"error forwarding port 81: connection refused"
        await websocket.close()
        connection.close()


# Framing without I/O


def test_frames_survive_any_cut_of_the_bytes() -> None:
    client, server = SpdyFraming(client=True), SpdyFraming(client=False)
    stream_id, frames = client.open_stream({"streamType": "data", "port": "80"})
    frames += client.data(stream_id, b"x" * 70_000, fin=True) + client.ping(1) + client.go_away()
    events = [event for i in range(0, len(frames), 7) for event in server.receive(frames[i : i + 7])]
    assert events[0] == StreamOpened(1, {"streamtype": "data", "port": "80"}, False)
    assert b"".join(e.data for e in events if isinstance(e, DataReceived)) == b"x" * 70_000
    assert isinstance(events[-1], GoneAway)
    assert bytes(server.replies) == client.ping(1)
    answers = client.receive(server.reply(1, {"a": "b"}) + server.reset(1))
    assert answers == [StreamReplied(1, {"a": "b"}, False), StreamReset(1, 5)]


def test_header_compression_starts_as_the_protocol_says() -> None:
    """The first header block names the preset dictionary by its checksum (RFC 1950 section 2.2)."""
    _, frame = SpdyFraming(client=True).open_stream({"a": "b"})
    assert frame[18:20] in (b"\x78\xf9", b"\x78\xbb")
    assert frame[20:24] == bytes.fromhex("e3c6a7c2")


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=200), valid_start=st.booleans())
def test_garbage_is_refused_as_a_broken_connection(garbage: bytes, valid_start: bool) -> None:
    server = SpdyFraming(client=False)
    if valid_start:
        client = SpdyFraming(client=True)
        server.receive(client.open_stream({"streamType": "data"})[1])
    try:
        server.receive(garbage)
        server.receive(b"\x80\x03\x00\x01\x00\x00\x00" + bytes([len(garbage)]) + garbage)
    except SpdyError:
        pass


@settings(max_examples=30, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=100), kind=st.sampled_from(["spdy", "websocket", "tunnel"]))
def test_garbage_on_a_session_ends_only_that_session(garbage: bytes, kind: str) -> None:
    async def run() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with serving() as pool:
            if kind == "spdy":
                _, _, connection = await connect_spdy(pool, "/exec", {}, ["v4.channel.k8s.io"])
            elif kind == "websocket":
                _, _, connection = await connect_websocket(pool, "/exec", {}, ["v5.channel.k8s.io"])
            else:
                _, _, connection = await connect_tunnel(pool, "/forward", {})
            await connection.write(garbage)
            connection.close()
            command = await RemoteCommand.open(pool, "/exec", {})
            await command.close_stdin()
            assert await gather(command) == {2: b"0 bytes"}
            await command.close()
        assert not failures

    asyncio.run(run())


async def test_a_session_is_spliced_through_a_server_that_understands_nothing_of_it() -> None:
    """As the API server does towards a kubelet: open the same upgrade behind, then copy bytes both ways."""
    async with serving() as behind:

        async def handler(request: Request) -> Answer:
            names = ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol")
            headers = {name: request.headers[name] for name in names if name in request.headers}
            status, answered, remote = await behind.open_upgrade(request.method, request.raw_path, headers)
            assert status == 101
            assert not isinstance(remote, bytes)

            async def copy(source: Connection, target: Connection) -> None:
                while data := await source.read():
                    await target.write(data)
                target.close()

            async def run(client: Connection) -> None:
                await asyncio.gather(copy(client, remote), copy(remote, client))

            passed = [(name, value) for name, value in answered.items() if name.startswith("sec-")]
            return Upgrade("websocket", run, passed)

        front = HttpServer(handler)
        pool = HttpPool("127.0.0.1", await front.start("127.0.0.1", 0))
        command = await RemoteCommand.open(pool, "/exec", {})
        await command.write_stdin(b"z" * 500_000)
        await command.close_stdin()
        assert await gather(command) == {1: b"z" * 500_000, 2: b"500000 bytes"}
        assert command.status() == SUCCESS
        await command.close()
        await pool.close()
        await front.stop(1)
