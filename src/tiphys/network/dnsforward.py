"""Asks the machine's resolvers about names that are not the cluster's.

Decides whom to ask, how long, and what is remembered. A question goes to the first resolver of the file, then to the
next (or the same one again), each with its own time limit; equal questions at the same time are asked once. The answer's
bytes are passed on as they came. With no resolver, or none that answers: SERVFAIL.

Bounds: FORWARD_LIMIT questions at once (more get SERVFAIL), CACHE_LIMIT answers, each for CACHE_LONGEST_S at the most.
Spec: RFC 1035 section 7; RFC 5452 (ids and ports that cannot be guessed).
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from tiphys.base.clock import Clock, Randomness
from tiphys.network.dnsmessage import LARGEST_UDP_BYTES, Query, shortest_ttl_s, with_id

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
ATTEMPTS = 3
FORWARD_LIMIT = 512
CACHE_LIMIT = 2048
CACHE_LONGEST_S = 5.0
RESOLV_CONF = Path("/etc/resolv.conf")
Address = tuple[str, int]
Key = tuple[bytes, bool, bool, bool, bool, bool]


class Forwarder:
    """See the module's docstring. `own` are the addresses that we answer at: never asked, or we would ask ourselves."""

    def __init__(
        self, clock: Clock, randomness: Randomness, own: Collection[str], *, resolv_conf: Path = RESOLV_CONF
    ) -> None:
        self._clock = clock
        self._randomness = randomness
        self._own = frozenset(own)
        self._path = resolv_conf
        self._read_of: tuple[int, int] = (0, 0)
        """Time and size of the file that `_servers` were read from."""
        self._servers: list[Address] = []
        self._cache: dict[Key, tuple[float, bytes]] = {}
        self._asked: dict[Key, asyncio.Task[bytes | None]] = {}

    async def ask(self, query: Query, *, tcp: bool = False) -> bytes | None:
        """Return the answer with the query's id; None when no resolver has answered."""
        key = (*query.key, tcp)
        known = self._cache.get(key)
        if known and known[0] > self._clock.monotonic_s():
            return with_id(known[1], query.id)
        task = self._asked.get(key)
        if task is None:
            if len(self._asked) >= FORWARD_LIMIT:
                return None
            task = asyncio.create_task(self._ask_all(query, tcp), name="dns-forward")
            self._asked[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        answer = await asyncio.shield(task)
        return with_id(answer, query.id) if answer else None

    def close(self) -> None:
        for task in self._asked.values():
            task.cancel()

    def servers(self) -> list[Address]:
        """Return the resolvers of the file as it is now."""
        try:
            stat = os.stat(self._path)
            if (stat.st_mtime_ns, stat.st_size) != self._read_of:
                self._servers = parse_resolv_conf(self._path.read_text(errors="replace"), self._own)
                self._read_of = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            self._servers = []
        return self._servers

    def _answered(self, key: Key, task: asyncio.Task[bytes | None]) -> None:
        del self._asked[key]
        if task.cancelled() or task.exception():
            return
        answer = task.result()
        if answer and answer[3] & 0xF in (0, 3) and not answer[2] & 2:
            if len(self._cache) >= CACHE_LIMIT:
                self._cache.clear()
            keep_s = min(shortest_ttl_s(answer), CACHE_LONGEST_S)
            if keep_s > 0:
                self._cache[key] = (self._clock.monotonic_s() + keep_s, answer)

    async def _ask_all(self, query: Query, tcp: bool) -> bytes | None:
        servers = self.servers()
        ask = _ask_by_tcp if tcp else _ask_by_udp
        failure: bytes | None = None
        for attempt in range(max(ATTEMPTS, len(servers)) if servers else 0):
            server = servers[attempt % len(servers)]
            message = _encode(query, self._randomness.integer(0, 0xFFFF))
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await ask(server, message)
            except (OSError, TimeoutError, EOFError) as error:
                log.debug("the resolver %s did not answer: %s", server[0], error or type(error).__name__)
                continue
            if answer[3] & 0xF in (2, 5):  # another resolver may know
                failure = answer
                if len(servers) == 1:
                    break
                continue
            return answer
        return failure


def parse_resolv_conf(text: str, own: Collection[str]) -> list[Address]:
    """Return the resolvers of a resolv.conf, without our own addresses."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and words[1] not in own:
            found.append((words[1], 53))
    return found


def _encode(query: Query, number: int) -> bytes:
    flags = (0x100 if query.recursion_desired else 0) | (0x10 if query.checking_disabled else 0)
    message = struct.pack("!6H", number, flags, 1, 0, 0, int(query.edns)) + query.question
    if query.edns:
        message += struct.pack("!BHHBBHH", 0, 41, LARGEST_UDP_BYTES, 0, 0, 0x8000 if query.dnssec else 0, 0)
    return message


def _is_answer(data: bytes, message: bytes) -> bool:
    """Say whether `data` answers `message`: same id, same question (whose case a resolver may change)."""
    end = len(message) - (11 if message[11] else 0)
    question = message[12:end]
    return (
        len(data) >= 12
        and data[:2] == message[:2]
        and bool(data[2] & 0x80)
        and (data[4:6] == b"\0\0" or data[12 : 12 + len(question)].lower() == question.lower())
    )


class _Ask(asyncio.DatagramProtocol):
    def __init__(self, message: bytes, answer: asyncio.Future[bytes]) -> None:
        self._message = message
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done() and _is_answer(data, self._message):
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _ask_by_udp(server: Address, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Ask(message, answer), remote_addr=server)
    try:
        transport.sendto(message)
        return await answer
    finally:
        transport.close()


async def _ask_by_tcp(server: Address, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(message)) + message)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(length)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if not _is_answer(answer, message):
        raise ConnectionError(f"{server[0]} answered something else")
    return answer
