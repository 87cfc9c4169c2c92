"""DNS messages as bytes: a strict, small parser of queries, and answers made by dnslib.

Pure; a malformed packet gives None or a FORMERR answer, never an exception. Only what a server must look at is parsed:
the question, and of the additional section the EDNS record.

Spec: RFC 1035 section 4; RFC 6891 (EDNS0); RFC 2308 (negative answers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dnslib import EDNS0, RR, DNSError, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
SMALLEST_UDP_BYTES = 512
LARGEST_UDP_BYTES = 1232
"""What every path carries unbroken (DNS flag day 2020)."""
_HEADER_BYTES = 12


@dataclass(frozen=True, slots=True)
class Query:
    """A query with one question. `labels` are lower case; `question` is its bytes as they came."""

    id: int
    recursion_desired: bool
    checking_disabled: bool
    labels: tuple[str, ...]
    kind: int
    question: bytes
    udp_bytes: int
    """How large an answer the client takes over UDP."""
    edns: bool
    dnssec: bool

    @property
    def key(self) -> tuple[bytes, bool, bool, bool, bool]:
        """What an answer depends on, but for its size."""
        return (self.question, self.edns, self.dnssec, self.recursion_desired, self.checking_disabled)


def parse_query(data: bytes) -> Query | int | None:
    """Return the query; or the code to answer with; or None for what gets no answer (too short, or an answer)."""
    if len(data) < _HEADER_BYTES:
        return None
    number, flags, questions, answers, authorities, additionals = struct.unpack_from("!6H", data)
    if flags & 0x8000:
        return None
    if flags & 0x7800:
        return NOTIMP
    if questions != 1 or answers or authorities:
        return FORMERR
    labels = []
    offset = _HEADER_BYTES
    while True:
        if offset >= len(data):
            return FORMERR
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(data) or offset - _HEADER_BYTES + length > 254:
            return FORMERR
        labels.append(data[offset : offset + length].decode("latin-1").lower())
        offset += length
    if offset + 4 > len(data):
        return FORMERR
    kind, group = struct.unpack_from("!2H", data, offset)
    offset += 4
    if group not in (1, 255):
        return REFUSED
    question = data[_HEADER_BYTES:offset]
    size, edns, dnssec = SMALLEST_UDP_BYTES, False, False
    if additionals and data[offset : offset + 3] == b"\0\0\x29" and len(data) >= offset + 11:
        size, _extended, version, edns_flags = struct.unpack_from("!HBBH", data, offset + 3)
        if version:
            return FORMERR
        edns, dnssec = True, bool(edns_flags & 0x8000)
        size = min(max(size, SMALLEST_UDP_BYTES), LARGEST_UDP_BYTES)
    return Query(number, bool(flags & 0x100), bool(flags & 0x10), tuple(labels), kind, question, size, edns, dnssec)


@dataclass(slots=True)
class Answer:
    """What the zone says to a question, before it is bytes."""

    code: int = NOERROR
    records: list[RR] = field(default_factory=list)
    authority: list[RR] = field(default_factory=list)
    additional: list[RR] = field(default_factory=list)
    authoritative: bool = True


def encode_answer(query: Query, answer: Answer) -> bytes:
    """Return the whole answer; its id is the query's."""
    flags = {"qr": 1, "aa": int(answer.authoritative), "ra": 1, "rd": int(query.recursion_desired)}
    header = DNSHeader(id=query.id, bitmap=0, rcode=answer.code, **flags)
    record = DNSRecord(header, q=DNSQuestion(_name_as_sent(query), query.kind))
    for rr in answer.records:
        record.add_answer(rr)
    for rr in answer.authority:
        record.add_auth(rr)
    for rr in answer.additional:
        record.add_ar(rr)
    if query.edns:
        record.add_ar(EDNS0(udp_len=LARGEST_UDP_BYTES))
    return bytes(record.pack())


def encode_failure(data: bytes, code: int) -> bytes:
    """Return an answer without a question to a packet of at least a header."""
    flags = 0x8000 | (data[2] << 8 & 0x7900) | code
    return data[:2] + struct.pack("!5H", flags, 0, 0, 0, 0)


def truncate(query: Query, data: bytes) -> bytes:
    """Return the answer as UDP may carry it: itself, or only its question with the bit that asks to come by TCP."""
    if len(data) <= query.udp_bytes:
        return data
    flags = struct.unpack_from("!H", data, 2)[0] | 0x0200
    short = data[:2] + struct.pack("!5H", flags, 1, 0, 0, int(query.edns)) + query.question
    return short + struct.pack("!BHHIH", 0, OPT, LARGEST_UDP_BYTES, 0, 0) if query.edns else short


def with_id(data: bytes, number: int) -> bytes:
    return struct.pack("!H", number) + data[2:]


def shortest_ttl_s(data: bytes) -> int:
    """Return the lowest TTL of an answer's records, 0 when there is none or it makes no sense."""
    try:
        _, _, questions, *counts = struct.unpack_from("!6H", data)
        offset = _HEADER_BYTES
        for _ in range(questions):
            offset = _skip_name(data, offset) + 4
        lowest: int | None = None
        for _ in range(sum(counts)):
            offset = _skip_name(data, offset)
            kind, _, ttl, length = struct.unpack_from("!HHIH", data, offset)
            offset += 10 + length
            if kind != OPT:
                lowest = ttl if lowest is None else min(lowest, ttl)
    except (struct.error, IndexError):
        return 0
    return lowest or 0


def _skip_name(data: bytes, offset: int) -> int:
    while True:
        length = data[offset]
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
        if length == 0:
            return offset


def _name_as_sent(query: Query) -> DNSLabel:
    labels, offset = [], 0
    while length := query.question[offset]:
        labels.append(query.question[offset + 1 : offset + 1 + length])
        offset += 1 + length
    return DNSLabel(labels)


def decode_records(data: bytes) -> list[RR]:
    """Return the answer section of another server's message; nothing when it makes no sense."""
    try:
        return list(DNSRecord.parse(data).rr)
    except (DNSError, BufferError, ValueError, IndexError, struct.error):
        return []
