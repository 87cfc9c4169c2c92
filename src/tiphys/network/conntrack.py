"""Forgets UDP flows that lead to backends which are gone.

Decides which entries of the kernel's connection tracking are stale: TCP clients notice a dead backend, but a UDP client
that keeps its port would have its packets sent to the old address for as long as it sends. Called by nftables.py after
the rules changed. Calls block.

Spec: nfnetlink_conntrack.h (numbers of messages and attributes).
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tiphys.network.interface import Endpoint
from tiphys.network.netlink import ACK, NETLINK_NETFILTER, Message, Netlink, NetlinkError, nested, parse_attributes

log = logging.getLogger(__name__)

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY, _ZONE = 1, 2, 18
_HEADER = struct.pack("=BBH", socket.AF_INET, 0, 0)
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients send to. Address "" is a node port: any address of this machine."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """One UDP flow: where the client sent it, where answers come from, and the raw tuple that names it."""

    to: Endpoint
    backend: Endpoint
    name: bytes


def is_stale(flow: Flow, frontends: dict[Frontend, Collection[Endpoint]]) -> bool:
    """Say whether a flow goes to a frontend and leads elsewhere than to one of its backends."""
    backends = frontends.get(Frontend(flow.to.address, flow.to.port))
    if backends is not None:
        return flow.backend not in backends
    backends = frontends.get(Frontend("", flow.to.port))
    # a flow that nobody translated may go to the same port of another machine
    return backends is not None and flow.backend != flow.to and flow.backend not in backends


def forget_stale_flows(frontends: dict[Frontend, Collection[Endpoint]]) -> int:
    """Delete the stale UDP flows of these frontends and return how many there were. Never raises: a flow that stays
    costs its client a timeout, nothing more."""
    try:
        if _COUNT.read_text().strip() == "0":
            return 0
    except OSError:
        pass
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            flows = netlink.dump(_GET, _HEADER, "listing tracked connections")
            stale = [flow for flow in _udp_flows(flows) if is_stale(flow, frontends)]
            netlink.apply(
                [Message(_DELETE, ACK, _HEADER + f.name, "forgetting a UDP flow", (errno.ENOENT,)) for f in stale]
            )
            return len(stale)
    except (OSError, NetlinkError) as error:
        log.warning("UDP flows to removed endpoints stay until they time out: %s", error)
        return 0


def _udp_flows(entries: list[bytes]) -> Iterator[Flow]:
    for entry in entries:
        values = dict(parse_attributes(entry[4:]))
        original, reply = values.get(_ORIGINAL), values.get(_REPLY)
        if not original or not reply or _protocol(original) != socket.IPPROTO_UDP:
            continue
        name = nested(_ORIGINAL, original)
        if _ZONE in values:
            name += struct.pack("=HH", 6, _ZONE) + values[_ZONE] + b"\0\0"
        yield Flow(_end(original, 2), _end(reply, 1), name)


def _protocol(flow: bytes) -> int:
    return dict(parse_attributes(dict(parse_attributes(flow))[2]))[1][0]


def _end(flow: bytes, which: int) -> Endpoint:
    """Return the source (1) or destination (2) of a tuple."""
    parts = dict(parse_attributes(flow))
    address = dict(parse_attributes(parts[1]))[which]
    port = dict(parse_attributes(parts[2]))[which + 1]
    return Endpoint(socket.inet_ntoa(address), int.from_bytes(port, "big"))
