"""The two collections that the proxy and DNS read, with the indexes that they need, so that both can share them."""

from __future__ import annotations

from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.service import Service
from tiphys.base.clock import Randomness
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.client.resources import ENDPOINTSLICES, SERVICES

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
BY_SERVICE = "service"
BY_ADDRESS = "address"


def service_reflector(client: Client, randomness: Randomness) -> Reflector[Service]:
    return Reflector(client, SERVICES, Service, indexers={BY_ADDRESS: cluster_addresses}, randomness=randomness)


def slice_reflector(client: Client, randomness: Randomness) -> Reflector[EndpointSlice]:
    indexers = {BY_SERVICE: service_names, BY_ADDRESS: named_addresses}
    return Reflector(client, ENDPOINTSLICES, EndpointSlice, indexers=indexers, randomness=randomness)


def service_names(view: EndpointSlice) -> list[str]:
    """Return `namespace/name` of the Service that a slice belongs to, as an index wants it."""
    name = view.metadata.labels.get(SERVICE_NAME_LABEL)
    return [f"{view.metadata.namespace}/{name}"] if name else []


def cluster_addresses(view: Service) -> tuple[str, ...]:
    addresses = view.spec.cluster_ips or (view.spec.cluster_ip,)
    return tuple(address for address in addresses if address not in ("", "None"))


def named_addresses(view: EndpointSlice) -> list[str]:
    """Return the addresses of endpoints that have a host name: those have reverse records."""
    return [address for endpoint in view.endpoints if endpoint.hostname for address in endpoint.addresses]
