"""What the kubelet tells of itself and its machine: configuration (/configz) and the files below /var/log (/logs/).

Invariant: nothing outside of the log directory is shown, links included. Only clients that may do anything on the node
get here (server.py).

Spec: Kubernetes docs, "Kubelet Configuration" (configz answers {"kubeletconfig": ...}); KubeletConfiguration v1beta1.
"""

from __future__ import annotations

import html
import os
import stat
from typing import Any
from urllib.parse import quote

from tiphys.base.errors import ApiError
from tiphys.kubelet.eviction import format_bytes
from tiphys.kubelet.machine import MEMORY_THRESHOLD_BYTES
from tiphys.wire.message import Response

LARGEST_BYTES = 32 << 20


def kubelet_configuration(
    *, address: str, port: int, cluster_dns: tuple[str, ...], cluster_domain: str, max_pods: int
) -> dict[str, Any]:
    """Return the settings that a KubeletConfiguration would hold."""
    configuration = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": address,
        "port": port,
        "authentication": {
            "x509": {},
            "webhook": {"enabled": False, "cacheTTL": "2m0s"},
            "anonymous": {"enabled": False},
        },
        "clusterDomain": cluster_domain,
        "clusterDNS": list(cluster_dns),
        "nodeStatusUpdateFrequency": "10s",
        "nodeLeaseDurationSeconds": 40,
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "cgroupsPerQOS": True,
        "maxPods": max_pods,
        "evictionHard": {"memory.available": format_bytes(MEMORY_THRESHOLD_BYTES)},
        "enableControllerAttachDetach": False,
        "failSwapOn": False,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 5,
    }
    return {"kubeletconfig": configuration}


def log_file(root: str, parts: list[str]) -> Response:
    """Return a file below `root`, or the list of a directory as HTML. Raises ApiError."""
    base = os.path.realpath(root)
    path = os.path.realpath(os.path.join(base, *parts))
    missing = ApiError(404, "NotFound", "404 page not found")
    if path != base and not path.startswith(base + "/"):
        raise missing
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            return _listing(path)
        if not stat.S_ISREG(kind):
            raise missing
        with open(path, "rb") as file:
            return Response(200, file.read(LARGEST_BYTES), "text/plain; charset=utf-8")
    except OSError as error:
        raise missing from error


def _listing(path: str) -> Response:
    lines = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            name = entry.name + ("/" if entry.is_dir() else "")
            lines.append(f'<a href="{quote(name)}">{html.escape(name)}</a>\n')
    return Response(200, f"<!doctype html>\n<pre>\n{''.join(lines)}</pre>\n".encode(), "text/html; charset=utf-8")
