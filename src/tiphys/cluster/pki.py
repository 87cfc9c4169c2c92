"""The keys and certificates of a cluster: made once, read by each process, never leaving the cluster's directory.

Every component has a client certificate of its own with the user name that RBAC knows it by.

Spec: Kubernetes documentation, "PKI certificates and requirements".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiphys.cluster.config import ClusterConfig, Files
from tiphys.wire.tls import KeyPair, create_ca, create_signing_key, issue, write_private_files

CLIENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("kubernetes-admin", ("system:masters",)),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", ("system:masters",)),
    "controllers": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
}
"""Name of the pair of files -> (user, groups)."""

FRONT_PROXY_CA = "front-proxy-ca"
FRONT_PROXY_CLIENT = "front-proxy-client"
"""An authority of its own: who has its certificates may say for whom a request is made (X-Remote-User)."""


@dataclass(frozen=True, slots=True)
class Pki:
    """Paths of what `ensure_pki` made."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def signing_key(self) -> Path:
        return self.directory / "service-accounts.key"

    def pair(self, name: str) -> tuple[Path, Path]:
        """Return (certificate, key)."""
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"


def node_names(config: ClusterConfig) -> list[str]:
    """Return the names of the cluster's nodes: `<node>`, or `<node>-0..n` when there are several."""
    if config.nodes == 1:
        return [config.node_name]
    return [f"{config.node_name}-{i}" for i in range(config.nodes)]


def front_proxy_issuer(config: ClusterConfig) -> str:
    """Return the common name of the front-proxy authority: other than that of the cluster's, so that they differ."""
    return f"tiphys-{config.name}-front-proxy"


def is_complete(config: ClusterConfig) -> bool:
    """Return whether every file that `ensure_pki` makes is there."""
    pki = Pki(Files.of(config.name).pki)
    names = ["ca", "apiserver", FRONT_PROXY_CA, FRONT_PROXY_CLIENT, *CLIENTS]
    names += [f"kubelet-{node}" for node in node_names(config)]
    return pki.signing_key.exists() and all(path.exists() for name in names for path in pki.pair(name))


def ensure_pki(config: ClusterConfig) -> Pki:
    """Make what is absent and return the paths. A cluster keeps its authorities for life.

    Everything is written together at the end, authorities first: after a crash in between, what is missing is made anew
    by the ones that stand.
    """
    pki = Pki(Files.of(config.name).pki)
    made: Made = []
    ca = _ensure_ca(pki, made, "ca", f"tiphys-{config.name}")
    front_proxy_ca = _ensure_ca(pki, made, FRONT_PROXY_CA, front_proxy_issuer(config))
    for name, (user, groups) in CLIENTS.items():
        _ensure(pki, made, ca, name, user, groups)
    addresses = sorted({"127.0.0.1", config.node_address, config.gateway, config.api_service_address})
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"kubernetes.default.svc.{config.cluster_domain}")
    _ensure(pki, made, ca, "apiserver", "kube-apiserver", (), names, addresses)
    for node in node_names(config):
        user, groups = f"system:node:{node}", ("system:nodes",)
        _ensure(pki, made, ca, f"kubelet-{node}", user, groups, [node], ["127.0.0.1", config.node_address])
    _ensure(pki, made, front_proxy_ca, FRONT_PROXY_CLIENT, FRONT_PROXY_CLIENT, ())
    if not pki.signing_key.exists():
        made.append((pki.signing_key, create_signing_key()[0]))
    write_private_files(made)
    return pki


Made = list[tuple[Path, bytes]]
"""Files that are still to be written."""


def _ensure_ca(pki: Pki, made: Made, name: str, common_name: str) -> KeyPair:
    certificate, key = pki.pair(name)
    if certificate.exists() and key.exists():
        return KeyPair.read(certificate, key)
    ca = create_ca(common_name)
    made += [(key, ca.key), (certificate, ca.certificate)]
    return ca


def _ensure(
    pki: Pki,
    made: Made,
    ca: KeyPair,
    name: str,
    user: str,
    groups: Sequence[str],
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
) -> None:
    certificate, key = pki.pair(name)
    if certificate.exists() and key.exists():
        return
    serves = bool(dns_names)
    client = name != "apiserver"
    pair = issue(ca, user, groups, dns_names=dns_names, ip_addresses=addresses, server=serves, client=client)
    made += [(key, pair.key), (certificate, pair.certificate)]
