"""Objects that every cluster has besides those of the API server: the DNS Service of this machine.

Spec: Kubernetes documentation, "DNS for Services and Pods"; cluster DNS is found by the Service `kube-dns`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tiphys.base.errors import ApiError
from tiphys.client.interface import Client
from tiphys.client.resources import ENDPOINTSLICES, SERVICES
from tiphys.cluster.config import ClusterConfig


async def publish_dns(client: Client, config: ClusterConfig) -> None:
    """Make the kube-dns Service, whose endpoint is the DNS server of this machine."""
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": labels},
        "spec": {"clusterIP": config.dns_address, "ports": ports},
    }
    endpoint_slice: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [config.gateway], "conditions": {"ready": True}}],
        "ports": [{"name": p["name"], "port": 53, "protocol": p["protocol"]} for p in ports],
    }
    for resource, obj in ((SERVICES, service), (ENDPOINTSLICES, endpoint_slice)):
        while True:
            try:
                await client.create(resource, "kube-system", obj)
                break
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    break
                await asyncio.sleep(0.2)  # the namespace comes with the API server's first seconds
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(0.1)
