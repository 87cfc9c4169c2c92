"""The cluster's own names: what Services, their endpoints and pods are called, and the answers to questions for them.

Decides every answer under the cluster domain, and the reverse names of Services and named endpoints. Pure over the two
reflectors; read by dns.py. Names elsewhere give None: they are forwarded.

Spec: Kubernetes DNS-Based Service Discovery, version 1.1.0; RFC 2308 (a name that exists without the asked type is no
error with an SOA, one that does not exist is NXDOMAIN); RFC 8020 (a name exists if one below it does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnslib import AAAA as AAAARecord
from dnslib import CNAME as CNAMERecord
from dnslib import PTR as PTRRecord
from dnslib import RR
from dnslib import SOA as SOARecord
from dnslib import SRV as SRVRecord
from dnslib import TXT as TXTRecord
from dnslib import A as ARecord

from tiphys.api.views.discovery import Endpoint, EndpointSlice
from tiphys.api.views.service import Service
from tiphys.client.reflector import Reflector
from tiphys.network.dnsmessage import AAAA, ANY, CNAME, NXDOMAIN, PTR, SOA, SRV, TXT, A, Answer, Query
from tiphys.network.watches import BY_ADDRESS, BY_SERVICE, SERVICE_NAME_LABEL, cluster_addresses

TTL_S = 5
VERSION = "1.1.0"
CHAIN_LIMIT = 8


class ClusterZone:
    """Answers from the objects that the reflectors hold."""

    def __init__(self, domain: str, services: Reflector[Service], slices: Reflector[EndpointSlice]) -> None:
        self.domain = domain.strip(".").lower()
        self._domain_labels = tuple(self.domain.split("."))
        self._services = services
        self._slices = slices

    def answer(self, query: Query) -> Answer | None:
        """Return the answer; None for a name that is not the cluster's. An ExternalName outside the cluster is
        answered with its CNAME alone: the server looks up the rest."""
        depth = len(self._domain_labels)
        if query.labels[-depth:] == self._domain_labels:
            return self._inside(query.labels[:-depth], query.kind, ".".join(query.labels))
        if query.labels[-2:] in (("in-addr", "arpa"), ("ip6", "arpa")):
            return self._reverse(query)
        return None

    def _inside(self, labels: tuple[str, ...], kind: int, name: str) -> Answer:
        records = self._records(labels, name)
        if records is None:
            return Answer(NXDOMAIN, authority=[self._soa()])
        found, additional = records
        chosen = [rr for rr in found if kind in (rr.rtype, ANY) or rr.rtype == CNAME]
        if not chosen:
            return Answer(authority=[self._soa()])
        return Answer(records=chosen, additional=additional if kind in (SRV, ANY) else [])

    def _records(self, labels: tuple[str, ...], name: str) -> tuple[list[RR], list[RR]] | None:
        """Return all records of a name and what goes with them; None if there is no such name."""
        if not labels:
            return [self._soa()], []
        if labels == ("dns-version",):
            return [RR(name, TXT, ttl=TTL_S, rdata=TXTRecord(VERSION))], []
        *front, zone = labels
        if zone == "svc":
            if not front:
                return [], []
            if len(front) == 1:
                return ([], []) if self._services.list(front[0]) else None
            service = self._services.get(f"{front[-1]}/{front[-2]}")
            return self._service_records(service, front[:-2], name) if service else None
        if zone == "pod":
            if len(front) < 2:
                return [], []
            address = _address_of_dashed(front[0]) if len(front) == 2 else None
            return ([_address_record(name, address)], []) if address else None
        return None

    # Services

    def _service_records(self, service: Service, front: list[str], name: str) -> tuple[list[RR], list[RR]] | None:
        spec = service.spec
        if spec.type == "ExternalName":
            if front:
                return None
            return [RR(name, CNAME, ttl=TTL_S, rdata=CNAMERecord(spec.external_name.rstrip(".") + "."))], []
        headless = spec.cluster_ip in ("", "None")
        if not front:
            addresses = self._endpoint_addresses(service) if headless else cluster_addresses(service)
            srv, additional = self._srv_records(service, name, headless, None)
            return [*(_address_record(name, a) for a in dict.fromkeys(addresses)), *srv], additional
        if front[-1] in ("_tcp", "_udp", "_sctp"):
            if len(front) == 1:
                known = any((p.protocol or "TCP").lower() == front[0][1:] and p.name for p in spec.ports)
                return ([], []) if known else None
            if len(front) != 2 or not front[0].startswith("_"):
                return None
            srv, additional = self._srv_records(service, name, headless, (front[0][1:], front[1][1:]))
            return (srv, additional) if srv else None
        if not headless or len(front) != 1:
            return None
        addresses = [a for e in self._endpoints(service) if _endpoint_name(e) == front[0] for a in e.addresses]
        return ([_address_record(name, a) for a in dict.fromkeys(addresses)], []) if addresses else None

    def _srv_records(
        self, service: Service, name: str, headless: bool, wanted: tuple[str, str] | None
    ) -> tuple[list[RR], list[RR]]:
        """Return the SRV records of the named ports (all, or of one port and protocol) and their targets' addresses."""
        base = f"{service.metadata.name}.{service.metadata.namespace}.svc.{self.domain}"
        found: dict[tuple[str, int], None] = {}
        targets: dict[tuple[str, str], None] = {}
        if headless:
            for view in self._views(service):
                for port in view.ports:
                    if not port.port or not _is_wanted(port.name, port.protocol, wanted):
                        continue
                    for endpoint in view.endpoints:
                        if not _is_published(service, endpoint):
                            continue
                        target = f"{_endpoint_name(endpoint)}.{base}"
                        found[target, port.port] = None
                        targets.update(dict.fromkeys((target, a) for a in endpoint.addresses))
        else:
            for service_port in service.spec.ports:
                if service_port.port and _is_wanted(service_port.name, service_port.protocol, wanted):
                    found[base, service_port.port] = None
            if found:
                targets.update(dict.fromkeys((base, a) for a in cluster_addresses(service)))
        weight = max(100 // len(found), 1) if found else 0
        srv = [RR(name, SRV, ttl=TTL_S, rdata=SRVRecord(0, weight, port, target)) for target, port in found]
        return srv, [_address_record(target, address) for target, address in targets]

    def _views(self, service: Service) -> list[EndpointSlice]:
        key = f"{service.metadata.namespace}/{service.metadata.name}"
        views: Sequence[EndpointSlice] = self._slices.by_index(BY_SERVICE, key)
        return [view for view in views if view.address_type != "FQDN"]

    def _endpoints(self, service: Service) -> Iterator[Endpoint]:
        for view in self._views(service):
            yield from (endpoint for endpoint in view.endpoints if _is_published(service, endpoint))

    def _endpoint_addresses(self, service: Service) -> Iterable[str]:
        return [address for endpoint in self._endpoints(service) for address in endpoint.addresses]

    # Reverse names

    def _reverse(self, query: Query) -> Answer | None:
        address = _address_of_reverse(query.labels)
        if not address:
            return None
        services: Sequence[Service] = self._services.by_index(BY_ADDRESS, address)
        names = [f"{s.metadata.name}.{s.metadata.namespace}.svc.{self.domain}" for s in services]
        views: Sequence[EndpointSlice] = self._slices.by_index(BY_ADDRESS, address)
        for view in views:
            service = view.metadata.labels.get(SERVICE_NAME_LABEL, "")
            base = f"{service}.{view.metadata.namespace}.svc.{self.domain}"
            names += [f"{e.hostname}.{base}" for e in view.endpoints if e.hostname and address in e.addresses]
        if not names:
            return None
        if query.kind not in (PTR, ANY):
            return Answer(authority=[self._soa()])
        owner = ".".join(query.labels)
        return Answer(records=[RR(owner, PTR, ttl=TTL_S, rdata=PTRRecord(n)) for n in dict.fromkeys(names)])

    def _soa(self) -> RR:
        # the serial says nothing here: there are no secondary servers
        times = (1, 7200, 1800, 86400, TTL_S)
        rdata = SOARecord(f"ns.dns.{self.domain}", f"hostmaster.{self.domain}", times)
        return RR(self.domain, SOA, ttl=TTL_S, rdata=rdata)


def _is_published(service: Service, endpoint: Endpoint) -> bool:
    conditions = endpoint.conditions
    return bool(service.spec.publish_not_ready_addresses) or conditions is None or conditions.ready is not False


def _is_wanted(name: str, protocol: str, wanted: tuple[str, str] | None) -> bool:
    return bool(name) and wanted in (None, (name.lower(), (protocol or "TCP").lower()))


def _endpoint_name(endpoint: Endpoint) -> str:
    """Return the label of one endpoint: its host name, or its first address with dashes."""
    if endpoint.hostname:
        return endpoint.hostname.lower()
    return endpoint.addresses[0].replace(".", "-").replace(":", "-") if endpoint.addresses else ""


def _address_record(name: str, address: str) -> RR:
    if ":" in address:
        return RR(name, AAAA, ttl=TTL_S, rdata=AAAARecord(address))
    return RR(name, A, ttl=TTL_S, rdata=ARecord(address))


def _address_of_dashed(label: str) -> str:
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ip_address(text))
        except ValueError:
            continue
    return ""


def _address_of_reverse(labels: tuple[str, ...]) -> str:
    digits = labels[-3::-1]
    try:
        if labels[-2] == "in-addr":
            return str(IPv4Address(".".join(digits))) if len(digits) == 4 else ""
        if len(digits) != 32 or any(len(d) != 1 for d in digits):
            return ""
        text = "".join(digits)
        return str(IPv6Address(":".join(text[i : i + 4] for i in range(0, 32, 4))))
    except ValueError:
        return ""
