"""The node IPAM controller: gives each node its own part of the cluster's pod range.

In: a node's name. Out: `spec.podCIDR` and `spec.podCIDRs`, written once and never changed (the API server refuses a
change). One worker decides, so no range is given twice; a crash between decision and write gives nothing.

Spec: Kubernetes docs, "kube-controller-manager" (allocate-node-cidrs, cluster-cidr, node-cidr-mask-size).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from tiphys.api.views.node import Node
from tiphys.base.errors import ApiError
from tiphys.controllers.shared import Controller, Shared


def first_free(cluster: str, prefix: int, used: Iterable[str]) -> str | None:
    """Return the first range of `prefix` bits in the cluster's that meets none in use, None if all are taken."""
    network = ipaddress.ip_network(cluster)
    step = 1 << (network.max_prefixlen - prefix)
    base = int(network.network_address)
    taken: set[int] = set()
    for text in used:
        other = ipaddress.ip_network(text, strict=False)
        if other.version != network.version or not other.overlaps(network):
            continue
        first = (max(int(other.network_address), base) - base) // step
        last = (int(other.broadcast_address) - base) // step
        taken.update(range(first, last + 1))
    count = 1 << (prefix - network.prefixlen)
    for number in range(count):
        if number not in taken:
            return f"{type(network.network_address)(base + number * step)}/{prefix}"
    return None


class PodRangeLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.nodes = shared.nodes
        self.recorder = shared.recorder("cidrAllocator")
        self.queue = shared.queue()
        self.nodes.on_change(self._changed)

    def _changed(self, old: Node | None, new: Node | None) -> None:
        if new is not None and not new.spec.pod_cidr:
            self.queue.add(new.metadata.name)

    async def reconcile(self, key: str) -> None:
        node = self.nodes.get(key)
        if node is None or node.spec.pod_cidr or node.metadata.deletion_timestamp:
            return
        newest = [self.nodes.get(n.metadata.name) or n for n in self.nodes.all()]
        used = [cidr for n in newest for cidr in (n.spec.pod_cidrs or (n.spec.pod_cidr,)) if cidr]
        deps = self.shared.deps
        free = first_free(deps.pod_cidr, deps.node_prefix, used)
        if free is None:
            text = f"Node {key} status is now: CIDRNotAvailable"
            self.recorder.record(node, "Normal", "CIDRNotAvailable", text)
            self.queue.add_after(key, 30.0)
            return
        try:
            await self.nodes.patch(node, {"spec": {"podCIDR": free, "podCIDRs": [free]}})
        except ApiError as error:
            if error.code != 404:
                raise


def pod_range_controller(shared: Shared) -> Controller:
    loop = PodRangeLoop(shared)
    return Controller("node-ipam", loop.queue, loop.reconcile, (loop.nodes,), workers=1)
