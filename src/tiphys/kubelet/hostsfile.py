"""The text of a pod's /etc/hosts. Pure.

Spec: Kubernetes docs, "Adding entries to Pod /etc/hosts with HostAliases".
"""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.kubelet.pod import BoundPod

HEADER = "# Kubernetes-managed hosts file.\n"
HOST_HEADER = "# Kubernetes-managed hosts file (host network).\n"
_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def hosts_text(pod: BoundPod, addresses: Sequence[str], hostname: str, domain: str, host_text: str) -> str:
    """Return the file. `host_text` is the node's own file, for pods on the host's network."""
    if pod.spec.host_network:
        text = HOST_HEADER + host_text
        if text and not text.endswith("\n"):
            text += "\n"
    else:
        names = f"{hostname}.{domain}\t{hostname}" if domain and "." not in hostname else hostname
        text = HEADER + _LOCAL + "".join(f"{address}\t{names}\n" for address in addresses)
    if pod.spec.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in pod.spec.host_aliases:
            joined = "\t".join(alias.hostnames)
            text += f"{alias.ip}\t{joined}\n"
    return text
