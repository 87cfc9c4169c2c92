"""The IP and CIDR libraries: addresses and networks, v4 and v6 alike.

An address has no zone and is no IPv4 address in IPv6 form, so that each address has one meaning.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes IP address library" and
"Kubernetes CIDR library"; RFC 5952 for the canonical text; RFC 4291 for scopes.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tiphys.api.causes import go_quote
from tiphys.api.cellibrary.costs import CHEAP, PARSED, actual_size
from tiphys.cel import types
from tiphys.cel.cost import ONE, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type
from tiphys.cel.values import Value

IP = types.opaque("net.IP")
CIDR = types.opaque("net.CIDR")

_LINK_LOCAL_MULTICAST_4 = ipaddress.ip_network("224.0.0.0/24")
_BROADCAST = ipaddress.ip_address("255.255.255.255")
_ADDRESS_BYTES = CostRange(4, 16)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class IPValue:
    """An address in an expression."""

    address: _Address
    cel_type: ClassVar[Type] = IP

    @property
    def cel_size(self) -> int:
        return math.ceil(self.address.max_prefixlen / 8)


@dataclass(frozen=True, slots=True)
class CIDRValue:
    """A network in an expression, with the address bits that its text had behind the prefix."""

    network: _Network
    cel_type: ClassVar[Type] = CIDR

    @property
    def cel_size(self) -> int:
        return math.ceil(self.network.network.prefixlen / 8)


def _fault(text: str) -> str:
    """Return why a text is no address, in the words of Go's parser."""
    if ":" in text:
        return "unable to parse IP" if text.strip(":0123456789abcdefABCDEF.") else "colon must precede more characters"
    if "." not in text:
        return "unable to parse IP"
    fields = text.split(".")
    for field in fields:
        if field and not field.isdigit():
            return "unexpected character"
        if not field:
            return "IPv4 field must have at least one digit"
        if len(field) > 1 and field[0] == "0":
            return "IPv4 field has octet with leading zero"
        if int(field) > 255:
            return "IPv4 field has value >255"
    return "IPv4 address too short" if len(fields) < 4 else "IPv4 address too long"


def _parse_ip(text: str) -> _Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        why = f"ParseAddr({go_quote(text)}): {_fault(text)}"
        raise EvaluationError(f"IP Address {go_quote(text)} parse error during conversion from string: {why}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise EvaluationError(f"IP address {go_quote(text)} with zone value is not allowed")
        if address.ipv4_mapped is not None:
            raise EvaluationError(f"IPv4-mapped IPv6 address {go_quote(text)} is not allowed")
    return address


def _parse_cidr(text: str) -> _Network:
    head, slash, prefix = text.partition("/")
    try:
        if not slash or not prefix.isdigit() or (len(prefix) > 1 and prefix[0] == "0"):
            raise ValueError
        network = ipaddress.ip_interface(text)
    except ValueError:
        why = "no '/'" if not slash else f"bad bits after slash: {go_quote(prefix)}"
        if slash and prefix.isdigit():
            why = "prefix length out of range" if _is_ip(head) else _fault(head)
        raise EvaluationError(
            f"network address parse error during conversion from string: netip.ParsePrefix({go_quote(text)}): {why}"
        ) from None
    if isinstance(network, ipaddress.IPv6Interface):
        if network.ip.scope_id:
            raise EvaluationError(f"CIDR address {go_quote(text)} with zone value is not allowed")
        if network.ip.ipv4_mapped is not None:
            raise EvaluationError(f"IPv4-mapped IPv6 address {go_quote(text)} is not allowed")
    return network


def _is(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except EvaluationError:
            return False
        return True

    return check


_is_ip = _is(_parse_ip)


def _is_link_local_multicast(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address in _LINK_LOCAL_MULTICAST_4
    return int(address) >> 112 & 0xFF0F == 0xFF02


def _is_link_local_unicast(address: _Address) -> bool:
    return address.is_link_local and not address.is_multicast


def _is_global_unicast(address: _Address) -> bool:
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address == _BROADCAST
    return not special and not _is_link_local_unicast(address)


def _contains_ip(cidr: CIDRValue, ip: IPValue) -> bool:
    return ip.address.version == cidr.network.version and ip.address in cidr.network.network


def _contains_ip_text(cidr: CIDRValue, text: str) -> bool:
    return _contains_ip(cidr, IPValue(_parse_ip(text)))


def _contains_cidr(outer: CIDRValue, inner: CIDRValue) -> bool:
    mine, other = outer.network.network, inner.network.network
    if mine.version != other.version or other.prefixlen < mine.prefixlen:
        return False
    return inner.network.ip in mine


def _contains_cidr_text(outer: CIDRValue, text: str) -> bool:
    return _contains_cidr(outer, CIDRValue(_parse_cidr(text)))


def _masked(cidr: CIDRValue) -> CIDRValue:
    return CIDRValue(ipaddress.ip_interface(cidr.network.network.with_prefixlen))


def _containment(base: Callable[[int], int], estimate: CostRange, parses: bool) -> CallCost:
    def actual(values: Sequence[Value], result: Value) -> int:
        parsing = math.ceil(actual_size(values[1]) * STRING_FACTOR) if parses else 0
        return base(actual_size(values[0])) + parsing

    def at_most(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
        return (estimate + operands[1].size.times(STRING_FACTOR) if parses else estimate), None

    return CallCost(actual, at_most)


_COMPARED = (_ADDRESS_BYTES + _ADDRESS_BYTES).times(STRING_FACTOR)


def _holds_ip(parses: bool) -> CallCost:
    return _containment(lambda size: math.ceil(2 * size * STRING_FACTOR), _COMPARED, parses)


def _holds_cidr(parses: bool) -> CallCost:
    def base(size: int) -> int:
        return math.ceil(2 * size * STRING_FACTOR) + math.ceil(size * STRING_FACTOR) + 1

    return _containment(base, _COMPARED + _ADDRESS_BYTES.times(STRING_FACTOR) + ONE, parses)


def _canonical_actual(values: Sequence[Value], result: Value) -> int:
    return math.ceil(actual_size(values[0]) * 2 * STRING_FACTOR)


_CANONICAL = CallCost(_canonical_actual, lambda operands: (ONE, None))
_S, _B = types.STRING, types.BOOL


def _property(name: str, overload: str, of: Type, result: Type, call: Callable[[Any], Any]) -> Function:
    return Function(name, (Overload(overload, (of,), result, call, member=True, cost=CHEAP),))


def _from_text(name: str, overload: str, result: Type, call: Callable[[str], Any]) -> Overload:
    return Overload(overload, (_S,), result, call, cost=PARSED)


LIBRARY: Library = (
    Function(
        "ip",
        (
            _from_text("ip", "string_to_ip", IP, lambda text: IPValue(_parse_ip(text))),
            Overload("cidr_ip", (CIDR,), IP, lambda cidr: IPValue(cidr.network.ip), member=True, cost=CHEAP),
        ),
    ),
    Function("isIP", (_from_text("isIP", "is_ip", _B, _is_ip),)),
    Function(
        "ip.isCanonical",
        (Overload("ip_is_canonical", (_S,), _B, lambda text: str(_parse_ip(text)) == text, cost=_CANONICAL),),
    ),
    Function("cidr", (_from_text("cidr", "string_to_cidr", CIDR, lambda text: CIDRValue(_parse_cidr(text))),)),
    Function("isCIDR", (_from_text("isCIDR", "is_cidr", _B, _is(_parse_cidr)),)),
    _property("family", "ip_family", IP, types.INT, lambda ip: ip.address.version),
    _property("isUnspecified", "ip_is_unspecified", IP, _B, lambda ip: ip.address.is_unspecified),
    _property("isLoopback", "ip_is_loopback", IP, _B, lambda ip: ip.address.is_loopback),
    _property(
        "isLinkLocalMulticast",
        "ip_is_link_local_multicast",
        IP,
        _B,
        lambda ip: _is_link_local_multicast(ip.address),
    ),
    _property("isLinkLocalUnicast", "ip_is_link_local_unicast", IP, _B, lambda ip: _is_link_local_unicast(ip.address)),
    _property("isGlobalUnicast", "ip_is_global_unicast", IP, _B, lambda ip: _is_global_unicast(ip.address)),
    _property("masked", "cidr_masked", CIDR, CIDR, _masked),
    _property("prefixLength", "cidr_prefix_length", CIDR, types.INT, lambda cidr: cidr.network.network.prefixlen),
    Function(
        "containsIP",
        (
            Overload("cidr_contains_ip_string", (CIDR, _S), _B, _contains_ip_text, True, _holds_ip(True)),
            Overload("cidr_contains_ip_ip", (CIDR, IP), _B, _contains_ip, True, _holds_ip(False)),
        ),
    ),
    Function(
        "containsCIDR",
        (
            Overload("cidr_contains_cidr_string", (CIDR, _S), _B, _contains_cidr_text, True, _holds_cidr(True)),
            Overload("cidr_contains_cidr", (CIDR, CIDR), _B, _contains_cidr, True, _holds_cidr(False)),
        ),
    ),
    Function(
        "string",
        (
            Overload("ip_to_string", (IP,), _S, lambda ip: str(ip.address)),
            Overload("cidr_to_string", (CIDR,), _S, lambda cidr: cidr.network.with_prefixlen),
        ),
    ),
)
