"""The node agents of this machine: kubelet, Service proxy and DNS over the real runtime and network.

Also how all that a real node put on the machine is taken away again (`remove_node`): each part knows its own traces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network

from tiphys.base.clock import Randomness, SystemClock
from tiphys.client.http import HttpClient
from tiphys.cluster.addons import publish_dns
from tiphys.cluster.config import ClusterConfig, Files
from tiphys.cluster.pki import Pki
from tiphys.cluster.readiness import wait_for_nodes
from tiphys.kubelet.machine import read_machine
from tiphys.kubelet.run import KubeletDeps, run_kubelet
from tiphys.network.bridge import BridgeNetwork
from tiphys.network.nftables import NftablesProxy
from tiphys.runtime.embedded import EmbeddedRuntime
from tiphys.wire.tls import server_context

MakeClient = Callable[[str, str], HttpClient]
"""(name of the certificate, user agent) -> client; closed by the caller."""
Notify = Callable[[str], None]


def node_pod_cidr(config: ClusterConfig) -> str:
    """Return the pod range of this machine's node: the first /24 of the cluster's."""
    return str(next(IPv4Network(config.pod_cidr).subnets(new_prefix=24)))


def _network(config: ClusterConfig) -> BridgeNetwork:
    files = Files.of(config.name)
    return BridgeNetwork(
        config.bridge, node_pod_cidr(config), files.root / "network.json", cluster_cidr=config.pod_cidr
    )


def _proxy(config: ClusterConfig) -> NftablesProxy:
    return NftablesProxy(f"tiphys-{config.name}", config.pod_cidr, config.bridge)


def _runtime(config: ClusterConfig, network: BridgeNetwork) -> EmbeddedRuntime:
    files = Files.of(config.name)
    return EmbeddedRuntime(files.runtime, files.run / "runtime", network, SystemClock(), Randomness())


async def run_node(config: ClusterConfig, pki: Pki, client: MakeClient, notify: Notify) -> None:
    """Run the agents of this machine's real node."""
    from tiphys.kubelet.directory import PodDirectory
    from tiphys.network.dns import DnsDeps, run_dns
    from tiphys.network.proxy import ProxyDeps, run_proxy
    from tiphys.network.watches import service_reflector, slice_reflector

    clock, randomness = SystemClock(), Randomness()
    files = Files.of(config.name)
    network, proxy = _network(config), _proxy(config)
    await network.start()
    node = config.node_name
    kubelet_client = client(f"kubelet-{node}", "kubelet")
    proxy_client = client("proxy", "kube-proxy")
    # kubelet, proxy and DNS share one copy of the Services
    services, slices = service_reflector(proxy_client, randomness), slice_reflector(proxy_client, randomness)
    deps = KubeletDeps(
        client=kubelet_client,
        runtime=_runtime(config, network),
        clock=clock,
        randomness=randomness,
        node_name=node,
        node_addresses=(config.node_address,),
        machine=read_machine(str(files.node)),
        files=PodDirectory(str(files.node), kubelet_client, clock, config.cluster_domain),
        cluster_dns=(config.dns_address,),
        cluster_domain=config.cluster_domain,
        cgroup_root=f"/tiphys-{config.name}",
        kubernetes_version=config.git_version,
        pod_cidr=node_pod_cidr(config),
        services=services,
        server_tls=server_context(*pki.pair(f"kubelet-{node}"), pki.ca),
        server_address=config.node_address,
        port=config.kubelet_port,
    )
    proxy_deps = ProxyDeps(proxy_client, proxy, clock, randomness, node_name=node, services=services, slices=slices)
    dns_deps = DnsDeps(
        proxy_client,
        clock,
        randomness,
        config.cluster_domain,
        (config.gateway,),
        services=services,
        slices=slices,
    )
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(services.run(), name="services")
            group.create_task(slices.run(), name="endpointslices")
            group.create_task(run_proxy(proxy_deps), name="proxy")
            group.create_task(run_dns(dns_deps), name="dns")
            group.create_task(run_kubelet(deps), name="kubelet")
            admin = client("admin", "tiphys")
            group.create_task(publish_dns(admin, config), name="dns-service")
            await wait_for_nodes(admin, {node})
            notify("node")
    finally:
        await network.stop(remove=False)


async def remove_node(config: ClusterConfig) -> None:
    """Remove what the node put on this machine: containers, mounts, namespaces, cgroups, links and rules. Idempotent."""
    network = _network(config)
    runtime = _runtime(config, network)
    await network.start()
    await runtime.start()
    await runtime.remove_all()
    await network.stop(remove=True)
    await _proxy(config).stop(remove=True)
