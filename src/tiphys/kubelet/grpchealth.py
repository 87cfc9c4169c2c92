"""One call of the gRPC health checking protocol, over a minimal HTTP/2 client.

Uses the `h2` library, loaded at the first gRPC probe only, because one unary call does not justify grpcio in every
kubelet. Messages are those of Unhealthy events.

Spec: gRPC health checking protocol (grpc.health.v1.Health/Check); gRPC over HTTP/2.
"""

from __future__ import annotations

import asyncio

from tiphys.kubelet.plan import format_duration
from tiphys.kubelet.probehandler import ProbeResult, host_port

SERVING = 1
_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
UNIMPLEMENTED = 12


async def check_health(address: str, port: int, service: str, timeout_s: float, agent: str) -> ProbeResult:
    """Ask the server at `address` for the health of `service` ("" for the whole server)."""
    try:
        async with asyncio.timeout(timeout_s):
            try:
                reader, writer = await asyncio.open_connection(address, port)
            except ConnectionRefusedError:
                await asyncio.sleep(timeout_s)  # a gRPC client goes on trying until its time is over
                raise
            try:
                status, text, data = await _call(reader, writer, host_port(address, port), service, agent)
            finally:
                writer.close()
    except TimeoutError:
        within = f'"{host_port(address, port)}" within {format_duration(timeout_s)}'
        return ProbeResult(False, f"timeout: failed to connect service {within}: context deadline exceeded")
    except (OSError, ValueError) as error:
        return ProbeResult(False, f"error: health rpc probe failed: {error}")
    return judge(status, text, data, address, port)


def judge(status: int, text: str, data: bytes, address: str, port: int) -> ProbeResult:
    """Return what an answer means."""
    if status == UNIMPLEMENTED:
        where = host_port(address, port)
        return ProbeResult(False, f'error: this server at "{where}" does not implement the grpc health protocol '
                           f"(grpc.health.v1.Health): {text}")  # fmt: skip
    if status != 0:
        return ProbeResult(False, f"error: health rpc probe failed: rpc error: code = {status} desc = {text}")
    health = _decode_status(data)
    if health == SERVING:
        return ProbeResult(True, "service healthy")
    return ProbeResult(False, f'service unhealthy (responded with "{_NAMES.get(health, health)}")')


def _encode_request(service: str) -> bytes:
    name = service.encode()
    message = b""
    if name:
        length = len(name)
        prefix = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        message = b"\x0a" + prefix + name
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _decode_status(data: bytes) -> int:
    """Return field 1 of the answer; it is left out when it is 0."""
    message = data[5:]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str, agent: str
) -> tuple[int, str, bytes]:
    """Return (grpc-status, grpc-message, body)."""
    import h2.config
    import h2.connection
    import h2.events
    import h2.exceptions

    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", agent),
    ]
    connection.send_headers(1, headers)
    connection.send_data(1, _encode_request(service), end_stream=True)
    writer.write(connection.data_to_send())
    answer: dict[str, str] = {}
    body = b""
    while True:
        received = await reader.read(65536)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        try:
            events = connection.receive_data(received)
        except h2.exceptions.ProtocolError as error:
            raise ValueError(f"the server does not speak HTTP/2: {error}") from error
        for event in events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                answer.update({str(name): str(value) for name, value in event.headers})
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionResetError("the server ended the call")
            elif isinstance(event, h2.events.StreamEnded):
                return int(answer.get("grpc-status", "2")), answer.get("grpc-message", ""), body
        writer.write(connection.data_to_send())
