"""The text of the pod network's own nftables table: masquerading, host ports, and what pods may not reach.

Pure. Read by bridge.py. Everything that varies stands in maps, so a changed host port is a change of elements.

Spec: nft(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network

from tiphys.network.ipam import Lease

HAIRPIN_LIMIT = 4096
"""Up to this many addresses each gets its element `a . a`. In a larger range a pod that reaches any pod of this node
through a Service is seen with the bridge's address: nftables of the time cannot compare two fields of a packet."""


def format_table(table: str, bridge: str, pods: IPv4Network, cluster: IPv4Network) -> str:
    """Return commands that put the table in place of what stands there, without host ports."""
    if pods.num_addresses <= HAIRPIN_LIMIT:
        pairs = ", ".join(f"{a} . {a}" for a in pods.hosts())
        hairpin_set = f"set hairpin {{ type ipv4_addr . ipv4_addr; elements = {{ {pairs} }}; }}"
        hairpin = "ip saddr . ip daddr @hairpin"
    else:
        hairpin_set, hairpin = "", f"ip saddr {pods} ip daddr {pods} ct status dnat"
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
  map host_port {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map host_port_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  {hairpin_set}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop comment "the machine's loopback is not the pods'"
  }}
  chain redirects {{
    type filter hook output priority 0; policy accept;
    oifname "{bridge}" icmp type redirect drop comment "pods stay with their gateway, which translates Services"
  }}
  chain host_ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @host_port_at
    dnat ip to meta l4proto . th dport map @host_port
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local goto host_ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local goto host_ports
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {hairpin} masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {pods} ip daddr != {cluster} oifname != "{bridge}" masquerade fully-random
  }}
}}
"""


def format_host_ports(table: str, leases: Iterable[Lease]) -> str:
    """Return commands that make the host ports those of `leases`. The first pod that holds a port keeps it."""
    anywhere: dict[str, str] = {}
    somewhere: dict[str, str] = {}
    for lease in leases:
        for port in lease.ports:
            key = f"{port.protocol.lower()} . {port.host_port}"
            target = f"{lease.address} . {port.container_port}"
            if port.host_address in ("", "0.0.0.0"):
                anywhere.setdefault(key, target)
            elif ":" not in port.host_address:
                somewhere.setdefault(f"{port.host_address} . {key}", target)
    commands = [f"flush map ip {table} host_port", f"flush map ip {table} host_port_at"]
    for name, elements in (("host_port", anywhere), ("host_port_at", somewhere)):
        if elements:
            text = ", ".join(f"{key} : {value}" for key, value in elements.items())
            commands.append(f"add element ip {table} {name} {{ {text} }}")
    return "\n".join(commands) + "\n"


FORWARD_CHAIN = "ip filter FORWARD"
"""The chain of iptables that container engines and firewalls close for everything that is not theirs. A table of our
own cannot open it again: what one table drops is dropped."""


def plan_forwarding(listing: str, bridge: str) -> str:
    """Return commands that let pods through a FORWARD chain that drops by default; "" when nothing is to be done."""
    if "policy drop" not in listing or f'"{bridge}"' in listing:
        return ""
    return "".join(f'insert rule {FORWARD_CHAIN} {way} "{bridge}" counter accept\n' for way in ("iifname", "oifname"))


def plan_forwarding_removal(listing: str, bridge: str) -> str:
    """Return commands that take away the rules of `plan_forwarding`."""
    handles = re.findall(rf'^\s*[io]ifname "{re.escape(bridge)}" .*accept # handle (\d+)$', listing, re.MULTILINE)
    return "".join(f"delete rule {FORWARD_CHAIN} handle {handle}\n" for handle in handles)
