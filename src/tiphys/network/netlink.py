"""The few netlink messages that pod links need, sent in batches and answered one by one.

Decides nothing: it turns link, address, route and neighbour changes into bytes and the kernel's answers into errors.
A general library takes 14 ms a pod for what is here one `sendmsg` of about ten messages; every pod
pays it, so these few are written out. All calls block and belong in a worker thread.

Spec: RFC 3549; rtnetlink(7); the kernel's uapi headers if_link.h, rtnetlink.h and neighbour.h for numbers.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from tiphys.base.errors import TiphysError
from tiphys.runtime import syscalls

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, NEW_ROUTE, NEW_NEIGHBOUR, DELETE_NEIGHBOUR = 20, 24, 28, 29

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
ANSWER_TIMEOUT_S = 10.0
_BUFFER_BYTES = 1 << 18

R = TypeVar("R")


class NetlinkError(TiphysError):
    """The kernel refused one change. `number` is the errno."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{what} failed: {os.strerror(number)}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `what` names it in errors; errors in `tolerated` are no failure."""

    kind: int
    flags: int
    body: bytes
    what: str
    tolerated: tuple[int, ...] = ()


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def parse_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind without flags, data) of each attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """One netlink socket of the calling thread's network namespace."""

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(ANSWER_TIMEOUT_S)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def apply(self, messages: Sequence[Message]) -> None:
        """Send all messages at once; the kernel does each. Raises NetlinkError for the first that failed."""
        waiting: dict[int, Message] = {}
        batch = bytearray()
        for message in messages:
            self._sequence += 1
            waiting[self._sequence] = message
            batch += _header(message.kind, message.flags | REQUEST | ACK, self._sequence, message.body)
        if batch:
            self._socket.sendmsg([bytes(batch)])
        failure: NetlinkError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind != _ERROR or sequence not in waiting:
                    continue
                message = waiting.pop(sequence)
                number = -struct.unpack_from("=i", body)[0]
                if number and number not in message.tolerated and failure is None:
                    failure = NetlinkError(number, message.what)
        if failure:
            raise failure

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Return the bodies of all objects of a kind."""
        self._sequence += 1
        self._socket.sendmsg([_header(kind, REQUEST | DUMP, self._sequence, body)])
        found: list[bytes] = []
        while True:
            for got, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if got == _DONE:
                    return found
                if got == _ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data)[0], what)
                found.append(data)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(_BUFFER_BYTES)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
            yield kind, sequence, data[offset + 16 : offset + length]
            offset += max((length + 3) & ~3, 16)


def _header(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


# Messages

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_NET_NS_FD = 20, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE = 4


def _link(index: int = 0, *, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, _IFF_UP if up else 0, _IFF_UP if up else 0)


def _name(name: str) -> bytes:
    return attribute(_IFLA_IFNAME, name.encode() + b"\0")


def hardware_address(ip: bytes) -> bytes:
    """Return the link address that goes with an IPv4 address: the same one for every pod that gets the address, so no
    neighbour's cache is ever wrong."""
    return b"\x0a\x54" + ip


def add_bridge(name: str, mac: bytes, mtu: int) -> Message:
    kind = nested(_IFLA_LINKINFO, attribute(_INFO_KIND, b"bridge"))
    body = _link(up=True) + _name(name) + attribute(_IFLA_ADDRESS, mac) + _u32(_IFLA_MTU, mtu) + kind
    return Message(NEW_LINK, CREATE | EXCLUSIVE, body, f"making the bridge {name}", (errno.EEXIST,))


def add_pair(name: str, bridge_index: int, mtu: int, peer: str, peer_mac: bytes, namespace_fd: int) -> Message:
    """A veth pair: `name`, up, on the bridge; `peer`, down, in the namespace of that file descriptor."""
    other = _link() + _name(peer) + attribute(_IFLA_ADDRESS, peer_mac) + _u32(_IFLA_MTU, mtu)
    other += _u32(_IFLA_NET_NS_FD, namespace_fd)
    data = nested(_INFO_DATA, nested(_VETH_INFO_PEER, other))
    info = nested(_IFLA_LINKINFO, attribute(_INFO_KIND, b"veth"), data)
    body = _link(up=True) + _name(name) + _u32(_IFLA_MTU, mtu) + _u32(_IFLA_MASTER, bridge_index) + info
    return Message(NEW_LINK, CREATE | EXCLUSIVE, body, f"making the link {name}")


def set_port(name: str, alias: str) -> Message:
    """Write a bridge port's alias and let frames leave by the port that they came from (hairpin mode)."""
    slave = nested(_INFO_SLAVE_DATA, attribute(_BRPORT_MODE, b"\x01"))
    info = nested(_IFLA_LINKINFO, attribute(_INFO_SLAVE_KIND, b"bridge"), slave)
    body = _link() + _name(name) + attribute(_IFLA_IFALIAS, alias.encode()) + info
    return Message(NEW_LINK, 0, body, f"setting up the bridge port {name}")


def set_up(index: int, what: str) -> Message:
    return Message(NEW_LINK, 0, _link(index, up=True), f"bringing up {what}")


def delete_link(name: str) -> Message:
    return Message(DELETE_LINK, 0, _link() + _name(name), f"removing the link {name}", (errno.ENODEV,))


def add_address(index: int, ip: bytes, prefix: int, what: str) -> Message:
    body = struct.pack("=BBBBi", socket.AF_INET, prefix, 0, 0, index) + attribute(2, ip) + attribute(1, ip)
    return Message(NEW_ADDRESS, CREATE | REPLACE, body, f"giving {what} its address", (errno.EEXIST,))


def add_route(index: int, destination: bytes, prefix: int, gateway: bytes, what: str) -> Message:
    """A route by a gateway, or with an empty gateway one straight onto the link."""
    scope = 0 if gateway else 253
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, 254, 3, scope, 1, 0) + _u32(4, index)
    if prefix:
        body += attribute(1, destination)
    if gateway:
        body += attribute(5, gateway)
    return Message(NEW_ROUTE, CREATE | REPLACE, body, f"adding a route of {what}")


def add_neighbour(index: int, ip: bytes, mac: bytes) -> Message:
    """A permanent neighbour, so that the first packet waits for no question."""
    body = struct.pack("=BxHiHBB", socket.AF_INET, 0, index, 0x80, 0, 1) + attribute(1, ip) + attribute(2, mac)
    return Message(NEW_NEIGHBOUR, CREATE | REPLACE, body, "adding a neighbour")


def delete_neighbour(index: int, ip: bytes) -> Message:
    body = struct.pack("=BxHiHBB", socket.AF_INET, 0, index, 0, 0, 1) + attribute(1, ip)
    return Message(DELETE_NEIGHBOUR, 0, body, "removing a neighbour", (errno.ENOENT, errno.ENODEV))


@dataclass(frozen=True, slots=True)
class Link:
    """A link of this namespace. `master` is the index of its bridge, 0 without one."""

    index: int
    name: str
    mtu: int
    master: int
    alias: str


def list_links(netlink: Netlink) -> list[Link]:
    """Return all links of the socket's namespace."""
    found = []
    for body in netlink.dump(GET_LINK, _link(), "listing links"):
        index = struct.unpack_from("=i", body, 4)[0]
        values = dict(parse_attributes(body[16:]))
        text = {kind: values.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (3, _IFLA_IFALIAS)}
        numbers = {kind: int.from_bytes(values.get(kind, b""), "little") for kind in (_IFLA_MTU, _IFLA_MASTER)}
        found.append(Link(index, text[3], numbers[_IFLA_MTU], numbers[_IFLA_MASTER], text[_IFLA_IFALIAS]))
    return found


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def run_inside(namespace_fd: int, work: Callable[[], R]) -> R:
    """Return `work()` done by the calling thread inside another network namespace. The thread comes back; should that
    fail, the process must end, because a thread of the pool would act on a pod's network."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
        try:
            return work()
        finally:
            try:
                syscalls.setns(own, syscalls.CLONE_NEWNET)
            except OSError:
                os.abort()
    finally:
        os.close(own)
