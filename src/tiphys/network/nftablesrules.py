"""What one Service needs in the machine's nftables maps, as data, and the chains that read those maps.

Pure. Read by nftables.py. There is no chain for a Service: a Service's address maps to `goto <chain>` where the chain
depends only on how many endpoints there are, whether the source is hidden, and the affinity's time. The chain draws an
index into the packet mark, and `endpoint` maps (address, protocol, port, mark) to a backend. So any change of any
Service is a change of elements, whose cost does not grow with the number of Services.

Marks. `PLAIN + i` and `HIDDEN + i` live only between the draw and the next hook, which turns them into 0 and
MASQUERADE; the mark MASQUERADE lasts until postrouting, which sets 0. All clusters of a machine use the same numbers
with the same meaning, so that it does not matter whose chain comes first.

Spec: Kubernetes docs, "Virtual IPs and Service Proxies"; Service API (affinity, traffic policies); nft(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tiphys.network.interface import Endpoint, ServicePort

PLAIN, HIDDEN, MASQUERADE = 0x54000000, 0x55000000, 0x56000000
PREFIX = 0xFF000000
AFFINITY_LIMIT = 65536
"""Clients remembered at once, over all Services of the machine; beyond it new clients are spread without memory."""

Elements = dict[tuple[str, str], str]
"""(map, key) -> value, all in nft's words."""


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """A balancing chain. `at_node` chains serve node ports, whose packets have any of the machine's addresses."""

    size: int
    at_node: bool = False
    hidden: bool = False
    affinity_s: int = 0

    @property
    def name(self) -> str:
        name = f"{'p' if self.at_node else 'n'}{'m' if self.hidden else ''}{self.size}"
        return f"{name}t{self.affinity_s}" if self.affinity_s else name

    def rules(self) -> list[str]:
        draw = f"meta mark set numgen random mod {self.size} offset {HIDDEN if self.hidden else PLAIN:#x}"
        where = "" if self.at_node else "ip daddr . "
        which = "node_endpoint" if self.at_node else "endpoint"
        translate = f"dnat ip to {where}meta l4proto . th dport . meta mark map @{which}"
        if not self.affinity_s:
            return [draw, translate]
        who = "ip saddr . ip daddr . meta l4proto . th dport"
        remember = f"update @affinity {{ {who} timeout {self.affinity_s}s : meta mark }}"
        # a client's endpoint that is gone has no element, so its rule does not match and another one is drawn
        known = f"meta mark set {who} map @affinity"
        return [
            known,
            f"{remember} {translate}",
            f"delete @affinity {{ {who} : meta mark }}",
            draw,
            remember,
            translate,
        ]


@dataclass(frozen=True, slots=True)
class Needs:
    """What one service port needs: elements, and the chains that they go to."""

    elements: Elements
    chains: frozenset[Chain]


def plan_elements(port: ServicePort) -> Needs:
    """Return what a service port needs. The order of its endpoints is their numbering (see keep_slots)."""
    elements: Elements = {}
    chains: set[Chain] = set()
    local_only = port.external_endpoints is not None
    inside = tuple(e for e in port.endpoints if ":" not in e.address)
    outside = tuple(e for e in port.external_endpoints or () if ":" not in e.address) if local_only else inside
    proto = port.protocol.lower()

    def add(prefix: str, backends: tuple[Endpoint, ...], *, at_node: bool, hidden: bool, none: str) -> None:
        suffix = "_node" if at_node else ""
        if not backends:
            elements["unserved" + suffix, prefix] = none
            return
        chain = Chain(len(backends), at_node, hidden, port.session_affinity_timeout_s)
        chains.add(chain)
        elements["node_port" if at_node else "service", prefix] = f"goto {chain.name}"
        first = HIDDEN if hidden else PLAIN
        which = "node_endpoint" if at_node else "endpoint"
        for index, backend in enumerate(backends):
            elements[which, f"{prefix} . {first + index:#x}"] = f"{backend.address} . {backend.port}"

    # outside traffic that finds no endpoint on this node is for another node: it is dropped, not refused
    none = "drop" if local_only and inside else "goto refuse"
    for address in _ipv4(port.external_ips):
        prefix = f"{address} . {proto} . {port.port}"
        add(prefix, outside, at_node=False, hidden=not local_only, none=none)
    for address in _ipv4(port.cluster_ips):
        add(f"{address} . {proto} . {port.port}", inside, at_node=False, hidden=False, none="goto refuse")
    if port.node_port:
        add(f"{proto} . {port.node_port}", outside, at_node=True, hidden=not local_only, none=none)
    return Needs(elements, frozenset(chains))


def _ipv4(addresses: tuple[str, ...]) -> list[str]:
    return [address for address in addresses if ":" not in address]


def keep_slots(held: tuple[Endpoint, ...], wanted: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return `wanted` in an order where the endpoints of `held` keep their index if they can: a client's affinity is
    an index. When one goes, the last one takes its place and its clients are drawn again.

    DIFFERS: upstream moves no client of an endpoint that stays."""
    still = dict.fromkeys(wanted)
    slots: list[Endpoint | None] = [e if e in still else None for e in held]
    new = [e for e in still if e not in slots]
    for index, endpoint in enumerate(slots):
        if endpoint is None and new:
            slots[index] = new.pop(0)
    slots += new
    while None in slots:
        last = slots.pop()
        if last is not None:
            slots[slots.index(None)] = last
    return tuple(e for e in slots if e is not None)


def format_table(table: str, bridge: str) -> str:
    """Return commands that put an empty table in place of what stands there."""
    address, port = "ipv4_addr . inet_proto . inet_service", "inet_proto . inet_service"
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
  map service {{ type {address} : verdict; }}
  map node_port {{ type {port} : verdict; }}
  map endpoint {{ type {address} . mark : ipv4_addr . inet_service; }}
  map node_endpoint {{ type {port} . mark : ipv4_addr . inet_service; }}
  map unserved {{ type {address} : verdict; }}
  map unserved_node {{ type {port} : verdict; }}
  map affinity {{ type ipv4_addr . {address} : mark; flags dynamic, timeout; timeout 1h; size {AFFINITY_LIMIT}; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset comment "the kernel rations what it tells by ICMP"
    reject
  }}
  chain check {{
    ip daddr . meta l4proto . th dport vmap @unserved
    fib daddr type local meta l4proto . th dport vmap @unserved_node
  }}
  chain settle {{
    meta mark & {PREFIX:#x} == {PLAIN:#x} meta mark set 0
    meta mark & {PREFIX:#x} == {HIDDEN:#x} meta mark set {MASQUERADE:#x}
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service
    fib daddr type local meta l4proto . th dport vmap @node_port
  }}
  chain check_input {{
    type filter hook input priority -110; policy accept;
    ct state new jump check
  }}
  chain check_forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump check
  }}
  chain check_output {{
    type filter hook output priority -110; policy accept;
    ct state new jump check
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    goto services
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    goto services
  }}
  chain settle_prerouting {{
    type filter hook prerouting priority -99; policy accept;
    meta mark & 0xfe000000 == {PLAIN:#x} goto settle
  }}
  chain settle_output {{
    type filter hook output priority -99; policy accept;
    meta mark & 0xfe000000 == {PLAIN:#x} goto settle
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    meta mark {MASQUERADE:#x} meta mark set 0 masquerade fully-random
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
  }}
}}
"""


def format_chains(table: str, chains: Iterable[Chain]) -> Iterator[str]:
    """Yield commands that make balancing chains."""
    for chain in chains:
        yield f"add chain ip {table} {chain.name}"
        for rule in chain.rules():
            yield f"add rule ip {table} {chain.name} {rule}"


def format_elements(verb: str, table: str, elements: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield `add` or `delete` commands, one a map."""
    by_map: dict[str, list[str]] = {}
    for (name, key), value in elements.items():
        by_map.setdefault(name, []).append(f"{key} : {value}" if verb == "add" else key)
    for name, texts in by_map.items():
        yield f"{verb} element ip {table} {name} {{ {', '.join(texts)} }}"
