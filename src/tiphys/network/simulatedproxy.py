"""A service proxy without packets: what it would load stands in a dict. For simulated nodes and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiphys.network.interface import Endpoint, ServiceKey, ServicePort


class SimulatedServiceProxy:
    """Holds the wanted ports and answers where a connection would go."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, tuple[ServicePort, ...]] = {}

    async def start(self) -> None:
        pass

    async def sync(self, ports: Sequence[ServicePort]) -> None:
        self.services.clear()
        for port in ports:
            key = (port.namespace, port.name)
            self.services[key] = (*self.services.get(key, ()), port)

    async def update(self, changes: Mapping[ServiceKey, Sequence[ServicePort]]) -> None:
        for key, ports in changes.items():
            if ports:
                self.services[key] = tuple(ports)
            else:
                self.services.pop(key, None)

    async def stop(self, *, remove: bool) -> None:
        if remove:
            self.services.clear()

    def backends(self, address: str, port: int, protocol: str = "TCP") -> tuple[Endpoint, ...] | None:
        """Return where new connections to an address may go; () means refused, None that no service is there. The
        address "" stands for any address of the node (node ports)."""
        for ports in self.services.values():
            for service in ports:
                if service.protocol != protocol:
                    continue
                outside = service.endpoints if service.external_endpoints is None else service.external_endpoints
                if (not address and port == service.node_port) or (
                    address in service.external_ips and port == service.port
                ):
                    return outside
                if address in service.cluster_ips and port == service.port:
                    return service.endpoints
        return None
