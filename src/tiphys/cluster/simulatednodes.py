"""Simulated nodes: the real kubelet over a simulated runtime and network, many in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

from tiphys.api.views.service import Service
from tiphys.base.clock import Randomness, SystemClock
from tiphys.client.http import HttpClient
from tiphys.client.reflector import Reflector
from tiphys.client.resources import SERVICES
from tiphys.cluster.addons import publish_dns
from tiphys.cluster.config import ClusterConfig
from tiphys.cluster.pki import Pki
from tiphys.cluster.readiness import wait_for_nodes
from tiphys.kubelet.context import Writes
from tiphys.kubelet.machine import Machine
from tiphys.kubelet.probehandler import AgreeableProbes
from tiphys.kubelet.run import KubeletDeps, run_kubelet
from tiphys.network.simulated import SimulatedPodNetwork
from tiphys.runtime.simulated import Profile, SimulatedRuntime
from tiphys.wire.tls import server_context

MakeClient = Callable[[str, str], HttpClient]
Notify = Callable[[str], None]


async def run_simulated_nodes(
    config: ClusterConfig, pki: Pki, names: Sequence[str], client: MakeClient, notify: Notify
) -> None:
    """Run the kubelets of all simulated nodes; they share one connection pool a node and one watch of Services."""
    clock, randomness, writes = SystemClock(), Randomness(), Writes()
    admin = client("admin", "tiphys")
    services = Reflector(client("proxy", "kube-proxy"), SERVICES, Service, randomness=randomness)
    ranges = IPv4Network(config.pod_cidr).subnets(new_prefix=24)
    async with asyncio.TaskGroup() as group:
        group.create_task(services.run(), name="services")
        group.create_task(publish_dns(admin, config), name="dns-service")
        for name, pod_range in zip(names, ranges, strict=False):
            deps = KubeletDeps(
                client=client(f"kubelet-{name}", "kubelet"),
                runtime=SimulatedRuntime(Profile(), clock, randomness, SimulatedPodNetwork(str(pod_range))),
                clock=clock,
                randomness=randomness,
                node_name=name,
                node_addresses=("127.0.0.1",),
                machine=Machine(),
                network_probes=AgreeableProbes(),
                cluster_dns=(config.dns_address,),
                kubernetes_version=config.git_version,
                labels={"tiphys.dev/simulated": "true"},
                pod_cidr=str(pod_range),
                services=services,
                writes=writes,
                server_tls=server_context(*pki.pair(f"kubelet-{name}"), pki.ca),
                server_address="127.0.0.1",
                port=0,
            )
            group.create_task(run_kubelet(deps), name=f"kubelet-{name}")
        await wait_for_nodes(admin, set(names))
        notify("node")
