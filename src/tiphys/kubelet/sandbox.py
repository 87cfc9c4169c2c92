"""What a pod's sandbox is made from: host name, DNS, ports, cgroup. Pure.

Spec: Kubernetes docs, "DNS for Services and Pods" (policies, dnsConfig, hostname and subdomain, setHostnameAsFQDN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.kubelet.pod import BoundPod, is_sidecar
from tiphys.kubelet.resources import cgroup_parent, pod_resources
from tiphys.runtime.interface import SandboxConfig
from tiphys.runtime.podnetwork import PortMapping

LONGEST_HOSTNAME = 63
MAX_NAMESERVERS = 3
MAX_SEARCHES = 32


@dataclass(frozen=True, slots=True)
class Resolver:
    """Settings of a resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolver:
    """Return the settings of a resolv.conf; the last `search` line counts."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] == "search":
            searches = tuple(word.rstrip(".") or "." for word in words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), searches, tuple(options))


def pod_resolver(pod: BoundPod, cluster_dns: Sequence[str], cluster_domain: str, host: Resolver) -> Resolver:
    """Return the pod's resolver settings by its dnsPolicy, merged with its dnsConfig."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy == "None" or (policy.startswith("ClusterFirst") and not cluster_dns):
        base = Resolver() if policy == "None" else host
    elif policy == "Default":
        base = host
    else:
        domains = (f"{pod.metadata.namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain)
        searches = dict.fromkeys((*domains, *host.searches)) if cluster_domain else dict.fromkeys(host.searches)
        base = Resolver(tuple(cluster_dns), tuple(searches), ("ndots:5",))
    config = pod.spec.dns_config
    if config is None:
        return base
    options: dict[str, str] = {}
    for option in base.options:
        name, _, value = option.partition(":")
        options[name] = value
    for given in config.options:
        options[given.name] = given.value or ""
    return Resolver(
        tuple(dict.fromkeys((*base.servers, *config.nameservers)))[:MAX_NAMESERVERS],
        tuple(dict.fromkeys((*base.searches, *config.searches)))[:MAX_SEARCHES],
        tuple(f"{name}:{value}" if value else name for name, value in options.items()),
    )


def pod_hostname(pod: BoundPod, cluster_domain: str) -> tuple[str, str]:
    """Return (host name, domain). With setHostnameAsFQDN the host name carries the domain."""
    if pod.spec.hostname_override:
        return pod.spec.hostname_override, ""
    name = pod.spec.hostname or pod.metadata.name[:LONGEST_HOSTNAME].rstrip("-.")
    domain = ""
    if pod.spec.subdomain:
        domain = f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"
    if pod.spec.set_hostname_as_fqdn and domain:
        return f"{name}.{domain}", domain
    return name, domain


def sandbox_config(
    pod: BoundPod,
    attempt: int,
    *,
    resolver: Resolver,
    cluster_domain: str,
    node_name: str,
    log_directory: str,
    cgroup_root: str,
) -> SandboxConfig:
    """Return the record that the runtime makes the sandbox from."""
    host_network = bool(pod.spec.host_network)
    hostname = node_name if host_network else pod_hostname(pod, cluster_domain)[0]
    security = pod.spec.security_context
    return SandboxConfig(
        name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        uid=pod.metadata.uid,
        attempt=attempt,
        hostname=hostname,
        log_directory=log_directory,
        dns_servers=resolver.servers,
        dns_searches=resolver.searches,
        dns_options=resolver.options,
        port_mappings=() if host_network else port_mappings(pod),
        labels={**pod.metadata.labels, **pod_labels(pod)},
        annotations=dict(pod.metadata.annotations),
        cgroup_parent=cgroup_parent(cgroup_root, pod),
        resources=pod_resources(pod.spec),
        sysctls={s.name: s.value for s in security.sysctls} if security else {},
        host_network=host_network,
        host_pid=bool(pod.spec.host_pid),
        host_ipc=bool(pod.spec.host_ipc),
        share_process_namespace=bool(pod.spec.share_process_namespace),
    )


def pod_labels(pod: BoundPod) -> dict[str, str]:
    """Return the labels by which CRI tools find a pod's parts."""
    return {
        "io.kubernetes.pod.name": pod.metadata.name,
        "io.kubernetes.pod.namespace": pod.metadata.namespace,
        "io.kubernetes.pod.uid": pod.metadata.uid,
    }


def port_mappings(pod: BoundPod) -> tuple[PortMapping, ...]:
    """Return the host ports of main containers and sidecars."""
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers if is_sidecar(c))]
    return tuple(
        PortMapping(p.host_port, p.container_port or 0, p.protocol or "TCP", p.host_ip)  # type: ignore[arg-type]
        for c in containers
        for p in c.ports
        if p.host_port
    )
